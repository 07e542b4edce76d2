//! A caller of the order service: one connection, made anew when it breaks. What fails is sent again, under the same key.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use axum::body::{Body, Bytes, to_bytes};
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;

/// Of one request; the server ends its waits earlier.
const TIMEOUT: Duration = Duration::from_secs(40);
const ANSWER_BYTES_MAX: usize = 1 << 20;

pub(crate) struct Client {
    addresses: Vec<String>,
    /// Which of the addresses.
    turn: usize,
    connection: Option<SendRequest<Body>>,
}

/// What was answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.body).with_context(|| format!("could not read {:?}", self.body))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

impl Client {
    /// Of any of these instances, the first one first.
    pub(crate) fn new(addresses: &[String]) -> Client {
        Client { addresses: addresses.to_vec(), turn: 0, connection: None }
    }

    /// Sends what follows to the next instance.
    pub(crate) fn turn(&mut self) {
        self.turn += 1;
        self.connection = None;
    }

    /// One try, on the instance whose turn it is.
    pub(crate) async fn once(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Answer> {
        let answer = tokio::time::timeout(TIMEOUT, self.exchange(method, path, headers, body)).await;
        let answer = answer.context("no answer in time").flatten();
        if answer.is_err() {
            self.connection = None;
        }
        answer
    }

    async fn exchange(&mut self, method: Method, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Answer> {
        let address = self.addresses.get(self.turn % self.addresses.len().max(1)).context("there is no address")?;
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, address);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body.to_vec()))?;
        if self.connection.as_ref().is_none_or(SendRequest::is_closed) {
            let stream = TcpStream::connect(address).await?;
            let (sender, connection) = handshake(TokioIo::new(stream)).await?;
            // Ends with the sender, or when the server closes it.
            tokio::task::spawn(connection);
            self.connection = Some(sender);
        }
        let sender = self.connection.as_mut().context("there is no connection")?;
        sender.ready().await?;
        let (parts, body) = sender.send_request(request).await?.into_parts();
        let body = to_bytes(Body::new(body), ANSWER_BYTES_MAX).await?;
        Ok(Answer { status: parts.status, headers: parts.headers, body })
    }

    /// Tries one instance after the other until one has an answer that is no "come again".
    pub(crate) async fn until_answered(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
        tries_max: usize,
    ) -> Result<Answer> {
        let mut last = None;
        for _ in 0..tries_max {
            match self.once(method.clone(), path, headers, body).await {
                Ok(answer) if !is_for_later(answer.status) => return Ok(answer),
                Ok(answer) => last = Some(format!("{} {:?}", answer.status, answer.body)),
                Err(error) => last = Some(format!("{error:#}")),
            }
            self.turn();
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        bail!("{path} was not answered: {}", last.unwrap_or_default())
    }
}

fn is_for_later(status: StatusCode) -> bool {
    [StatusCode::SERVICE_UNAVAILABLE, StatusCode::GATEWAY_TIMEOUT, StatusCode::MISDIRECTED_REQUEST].contains(&status)
}

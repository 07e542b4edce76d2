//! In place of TLS in a build without it: nothing that could be made.

use mio::net::TcpStream;

use super::Failure;

#[derive(Debug, Clone)]
pub(super) enum TlsSettings {}

#[derive(Debug)]
pub(super) enum Session {}

impl TlsSettings {
    pub(super) fn session(&self, _server: &str) -> Result<Session, Failure> {
        match *self {}
    }
}

impl Session {
    pub(super) fn flush(&mut self, _outbox: &mut Vec<u8>, _socket: &mut TcpStream) -> Result<(), Failure> {
        match *self {}
    }

    pub(super) fn read(&mut self, _buffer: &mut [u8], _socket: &mut TcpStream) -> Result<Option<usize>, Failure> {
        match *self {}
    }
}

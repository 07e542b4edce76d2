//! Where the calls of asynchronous operators run.

use std::sync::OnceLock;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::task::AbortHandle;

use crate::topology::{Call, CallRunner, RunningCall};

/// Threads that drive calls: they wait for others and compute little.
const THREADS: usize = 2;

/// Runs the calls of an application side by side. Nothing is started before the first call.
#[derive(Debug, Default)]
pub(crate) struct ConcurrentCalls {
    runtime: OnceLock<Option<Runtime>>,
}

impl CallRunner for ConcurrentCalls {
    fn start(&self, call: Call, timeout: Duration) -> RunningCall {
        let runtime = self.runtime.get_or_init(|| {
            let mut builder = Builder::new_multi_thread();
            let runtime = builder.worker_threads(THREADS).thread_name("kstreams-calls").enable_all().build();
            runtime.inspect_err(|error| tracing::error!("could not start the threads for calls: {error}")).ok()
        });
        // Without a runtime the call is dropped, and reports that.
        let task = runtime.as_ref().map(|runtime| {
            let call = runtime.spawn(async move {
                let _ = tokio::time::timeout(timeout, call).await;
            });
            EndOnDrop(call.abort_handle())
        });
        Box::new(task)
    }
}

impl Drop for ConcurrentCalls {
    /// In the background, because the last owner may be inside of a runtime, where waiting is not allowed.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take().flatten() {
            runtime.shutdown_background();
        }
    }
}

struct EndOnDrop(AbortHandle);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Runs each call to its end before the next one begins, so that a test gives the same result each time.
#[cfg(feature = "testing")]
#[derive(Debug, Default)]
pub(crate) struct CallsInTurn;

#[cfg(feature = "testing")]
impl CallRunner for CallsInTurn {
    fn start(&self, call: Call, timeout: Duration) -> RunningCall {
        // A thread of its own: the test may be inside of a runtime.
        let ended = std::thread::scope(|scope| {
            let run = || {
                let runtime = Builder::new_current_thread().enable_all().build()?;
                runtime.block_on(async {
                    let _ = tokio::time::timeout(timeout, call).await;
                });
                std::io::Result::Ok(())
            };
            scope.spawn(run).join()
        });
        if let Ok(Err(error)) = ended {
            tracing::error!("could not run a call: {error}");
        }
        Box::new(())
    }
}

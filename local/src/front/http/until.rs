//! The one deadline of a request: all that it asks of the store ends by it, however many steps that has. The time that
//! the caller takes for a long body is his own, and is not counted.

use dstore_shared::{Error, Result};
use std::future::Future;
use std::time::Duration;
use tokio::time::Instant;

/// When a request is to have its answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Until {
    at: Instant,
    whole: Duration,
}

impl Until {
    /// So long from now.
    pub fn after(whole: Duration) -> Self {
        // The timer that is not waited for tells the moment.
        Self { at: tokio::time::sleep(whole).deadline(), whole }
    }

    /// What `call` gives in time. If none is left, it is not begun.
    ///
    /// # Errors
    /// `Unavailable`: the outcome is unknown, or nothing was begun.
    pub async fn of<T>(self, call: impl Future<Output = Result<T>>) -> Result<T> {
        if self.is_over() {
            let text =
                format!("it was not begun within `{:?}`, the time of the request: send less", self.whole);
            return Err(Error::unavailable(text));
        }
        let late =
            || Err(Error::unavailable(format!("no answer within `{:?}`: outcome unknown", self.whole)));
        self.within(call).await.unwrap_or_else(late)
    }

    /// What `part` of the request gives in time.
    pub async fn within<T>(self, part: impl Future<Output = T>) -> Option<T> {
        tokio::time::timeout_at(self.at, part).await.ok()
    }

    /// What `part` of the request gives, whose time is not counted.
    pub async fn aside<T>(&mut self, part: impl Future<Output = T>) -> T {
        let begun = tokio::time::sleep(Duration::ZERO).deadline();
        let done = part.await;
        self.at += begun.elapsed();
        done
    }

    fn is_over(self) -> bool {
        !self.at.elapsed().is_zero()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_done_aside_takes_nothing_of_the_time() {
        const A_WHILE: Duration = Duration::from_millis(30);
        let mut until = Until::after(Duration::from_secs(60));
        let before = until.at;
        until.aside(tokio::time::sleep(A_WHILE)).await;
        assert!(until.at >= before + A_WHILE, "{:?}", until.at - before);
        let before = until.at;
        assert!(until.within(tokio::time::sleep(A_WHILE)).await.is_some());
        assert_eq!(until.at, before);
    }

    #[tokio::test]
    async fn what_comes_after_the_deadline_of_a_request_is_not_begun() {
        let until = Until::after(Duration::from_secs(60));
        assert_eq!(until.of(async { Ok(7) }).await.expect("in time"), 7);
        let until = Until::after(Duration::from_millis(20));
        let late = until.of(std::future::pending::<Result<()>>()).await.expect_err("it never ends");
        assert!(late.message().ends_with("outcome unknown"), "{late}");
        tokio::time::sleep(Duration::from_millis(1)).await;
        let mut begun = false;
        let call = async {
            begun = true;
            Ok(())
        };
        let late = until.of(call).await.expect_err("too late");
        assert!(!begun && late.message().contains("not begun"), "{late}");
    }
}

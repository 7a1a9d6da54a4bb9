//! What is told of a wait for the stream: when it begins, when its reason changes, when it ends.

/// One part's wait.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    reason: Option<String>,
}

impl Waiting {
    /// The stream is not there, or must not be used.
    pub(crate) fn because(&mut self, part: &str, error: &stream::Error) {
        let reason = error.to_string();
        if self.reason.as_ref() == Some(&reason) {
            return;
        }
        if error.is_not_yet() {
            tracing::info!(part, reason, "not yet begun");
        } else {
            tracing::error!(part, reason, "waiting for the stream, nothing is lost");
        }
        self.reason = Some(reason);
    }

    /// The stream is there. Whether it was waited for.
    pub(crate) fn ended(&mut self, part: &str) -> bool {
        let waited = self.reason.take().is_some();
        if waited {
            tracing::info!(part, "the stream is there, going on");
        }
        waited
    }
}

//! Named moments at which a test may end, delay or watch the process.
//!
//! Only with the feature `failpoints`: without it [`failpoint!`](crate::failpoint) is nothing at all, not even its
//! name. With it a moment that nobody armed costs one relaxed load. What happens at a moment is said in the words of
//! the crate `fail`: `3*off->return(crash)` ends the process at the fourth time, `10%sleep(20)` delays one in ten.
//!
//! Invariants: a failpoint takes time or ends the process, and changes nothing else. It must never stand where
//! hits are served.

/// A moment that a test may wait for: `failpoint!("global::commit::after_fsync")`.
#[cfg(feature = "failpoints")]
#[macro_export]
macro_rules! failpoint {
    ($name:literal) => {
        $crate::failpoints::reached($name)
    };
}

/// A moment that a test may wait for; nothing, since this is built without the feature `failpoints`.
#[cfg(not(feature = "failpoints"))]
#[macro_export]
macro_rules! failpoint {
    ($name:literal) => {};
}

/// Arms what the environment says in `FAILPOINTS`, as `name=actions;name=actions`. Without the feature
/// nothing is read.
///
/// # Errors
/// What cannot be understood, in words.
#[cfg(not(feature = "failpoints"))]
pub fn arm() -> Result<(), String> {
    Ok(())
}

#[cfg(feature = "failpoints")]
pub use armed::{arm, disarm, reached, watch};

#[cfg(feature = "failpoints")]
mod armed {
    use std::sync::atomic::{AtomicBool, Ordering};

    static ARMED: AtomicBool = AtomicBool::new(false);

    /// Arms what the environment says in `FAILPOINTS`, as `name=actions;name=actions`.
    ///
    /// # Errors
    /// What cannot be understood, in words.
    pub fn arm() -> Result<(), String> {
        let Ok(all) = std::env::var("FAILPOINTS") else { return Ok(()) };
        for one in all.split(';').filter(|one| !one.trim().is_empty()) {
            let (name, actions) = one
                .split_once('=')
                .ok_or_else(|| format!("`FAILPOINTS`: `{one}` has no `=`: write `name=actions`"))?;
            fail::cfg(name.trim(), actions.trim()).map_err(|e| format!("`FAILPOINTS`: `{one}`: {e}"))?;
        }
        ARMED.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Has `told` called whenever any thread of this process reaches `name`.
    ///
    /// # Errors
    /// As [`arm`].
    pub fn watch(name: &str, told: impl Fn() + Send + Sync + 'static) -> Result<(), String> {
        fail::cfg_callback(name, told)?;
        ARMED.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Nothing happens at `name` any more.
    pub fn disarm(name: &str) {
        fail::remove(name);
    }

    /// What [`failpoint!`](crate::failpoint) calls.
    #[inline]
    pub fn reached(name: &'static str) {
        if ARMED.load(Ordering::Relaxed) {
            fail::eval(name, |how| act(name, how.as_deref()));
        }
    }

    /// The action `return(how)`: the only way to end that leaves no destructor, no buffer and no exit handler a say.
    #[cold]
    fn act(name: &str, how: Option<&str>) {
        if how == Some("crash") {
            tracing::error!(name, "failpoint: the process ends here");
            std::process::abort();
        }
        tracing::error!(name, ?how, "failpoint: use return(crash)");
    }
}

//! What each kind of windows makes of a grouped stream and of a cogroup.

use super::KGroupedStream;
use super::cogrouped::{CogroupedKStream, SessionWindowedCogroupedKStream, TimeWindowedCogroupedKStream};
use super::count_windowed::CountWindowedKStream;
use super::windowed::{SessionWindowedKStream, TimeWindowedKStream};
use crate::window::{CountWindows, SessionWindows, SlidingWindows, StoredWindows, TimeWindows, UnlimitedWindows};

/// Windows to aggregate by: [`TimeWindows`], [`SlidingWindows`], [`SessionWindows`], [`UnlimitedWindows`] or
/// [`CountWindows`].
pub trait Windows: sealed::Sealed {
    /// What a grouped stream becomes.
    type Stream<K: Clone + 'static, V: Clone + 'static>;

    #[doc(hidden)]
    fn windowed<K: Clone + 'static, V: Clone + 'static>(self, grouped: KGroupedStream<K, V>) -> Self::Stream<K, V>;
}

/// Windows to cogroup by: those of time.
#[diagnostic::on_unimplemented(
    message = "a cogroup cannot be aggregated by `{Self}`",
    note = "cogroup by TimeWindows, SlidingWindows, SessionWindows or UnlimitedWindows"
)]
pub trait CogroupedWindows: Windows {
    /// What a cogroup becomes.
    type Cogrouped<K: Clone + 'static, A: 'static>;

    #[doc(hidden)]
    fn cogrouped<K: Clone + 'static, A: 'static>(self, cogrouped: CogroupedKStream<K, A>) -> Self::Cogrouped<K, A>;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for crate::window::TimeWindows {}
    impl Sealed for crate::window::SlidingWindows {}
    impl Sealed for crate::window::SessionWindows {}
    impl Sealed for crate::window::UnlimitedWindows {}
    impl Sealed for crate::window::CountWindows {}
}

/// Windows that have a row in a window store.
macro_rules! stored {
    ($windows:ty, $stored:ident) => {
        impl Windows for $windows {
            type Stream<K: Clone + 'static, V: Clone + 'static> = TimeWindowedKStream<K, V>;

            fn windowed<K: Clone + 'static, V: Clone + 'static>(
                self,
                grouped: KGroupedStream<K, V>,
            ) -> Self::Stream<K, V> {
                TimeWindowedKStream::new(grouped, StoredWindows::$stored(self), self.check())
            }
        }

        impl CogroupedWindows for $windows {
            type Cogrouped<K: Clone + 'static, A: 'static> = TimeWindowedCogroupedKStream<K, A>;

            fn cogrouped<K: Clone + 'static, A: 'static>(
                self,
                cogrouped: CogroupedKStream<K, A>,
            ) -> Self::Cogrouped<K, A> {
                TimeWindowedCogroupedKStream::new(cogrouped, StoredWindows::$stored(self), self.check())
            }
        }
    };
}

stored!(TimeWindows, Time);
stored!(SlidingWindows, Sliding);
stored!(UnlimitedWindows, Unlimited);

impl Windows for SessionWindows {
    type Stream<K: Clone + 'static, V: Clone + 'static> = SessionWindowedKStream<K, V>;

    fn windowed<K: Clone + 'static, V: Clone + 'static>(self, grouped: KGroupedStream<K, V>) -> Self::Stream<K, V> {
        SessionWindowedKStream::new(grouped, self)
    }
}

impl CogroupedWindows for SessionWindows {
    type Cogrouped<K: Clone + 'static, A: 'static> = SessionWindowedCogroupedKStream<K, A>;

    fn cogrouped<K: Clone + 'static, A: 'static>(self, cogrouped: CogroupedKStream<K, A>) -> Self::Cogrouped<K, A> {
        SessionWindowedCogroupedKStream::new(cogrouped, self, self.check())
    }
}

impl Windows for CountWindows {
    type Stream<K: Clone + 'static, V: Clone + 'static> = CountWindowedKStream<K, V>;

    fn windowed<K: Clone + 'static, V: Clone + 'static>(self, grouped: KGroupedStream<K, V>) -> Self::Stream<K, V> {
        CountWindowedKStream::new(grouped, self)
    }
}

//! Deliberate bugs, one at a time: they show that tests and simulations notice them.
//!
//! With the feature `mutations` off, as in every release build, [`on`] is a constant `false` and
//! nothing of them is left. Each breaks one rule that some comment calls a rule; a checker that
//! catches none of them is not a checker.

/// A rule that is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutation {
    /// Own writes are announced before they are on disk.
    AnnounceEarly,
    /// An attach is answered before its record is on disk.
    ReplyEarly,
    /// A request for space that was answered already gets another block.
    GrantTwice,
    /// Blocks are granted that are only partly the giver's.
    GrantFragments,
    /// Blocks are granted in which addresses are held.
    GrantHeld,
    /// A retired entry says nothing, whatever is known of the block that it names.
    ForgetWithin,
    /// What is inside a grant is retired after the grant.
    RetireLate,
    /// Of two entries the one with the smaller counter wins.
    CompareReversed,
    /// A run is taken although it begins after what is here.
    ApplyGap,
    /// What a write superseded is not told any more, although the write is not yet.
    DropSuperseded,
    /// A delta leaves one origin out and says that it did not.
    SkipOrigin,
    /// A host that lost its disk writes before it was told what it once wrote.
    SettleUntold,
    /// A host that may be the copy of another does not wait to see whether it is.
    ServeAsCopy,
    /// Rings of two branches, of which one began by force, are merged.
    MergeBranches,
    /// The clock does not jump after a recall.
    RecallWithoutJump,
    /// Addresses are free before the kernel has removed their link.
    ReleaseEarly,
    /// A host leaves before its heir has its blocks.
    LeaveUnconfirmed,
    /// Some attachments are not there after a restart.
    RestartForgets,
    /// Space is given away before it is known what the kernel still holds.
    ServeUnprogrammed,
    /// A host takes no notice of its removal, nor do others of a removed one.
    ForgetFence,
    /// A lease counts from the answer, not from the question.
    LeaseFromAnswer,
    /// A promise is sent before it is on disk.
    PromiseEarly,
    /// One elector fewer than a majority decides.
    SmallQuorum,
    /// A host is removed without asking the others what it gave them.
    RemoveUnasked,
    /// A host whose disk may be an old one serves from it at once.
    ServeOldDisk,
    /// Ranges are added although they overlap.
    AddOverlap,
    /// Who lost its disk votes like anybody else.
    VoteForgetful,
    /// The ring is tidied although a part of it is still to come.
    TidyGaps,
}

impl Mutation {
    /// All of them.
    pub const ALL: [Self; 28] = [
        Self::AnnounceEarly,
        Self::ReplyEarly,
        Self::GrantTwice,
        Self::GrantFragments,
        Self::GrantHeld,
        Self::ForgetWithin,
        Self::RetireLate,
        Self::CompareReversed,
        Self::ApplyGap,
        Self::DropSuperseded,
        Self::SkipOrigin,
        Self::SettleUntold,
        Self::ServeAsCopy,
        Self::MergeBranches,
        Self::RecallWithoutJump,
        Self::ReleaseEarly,
        Self::LeaveUnconfirmed,
        Self::RestartForgets,
        Self::ServeUnprogrammed,
        Self::ForgetFence,
        Self::LeaseFromAnswer,
        Self::PromiseEarly,
        Self::SmallQuorum,
        Self::RemoveUnasked,
        Self::ServeOldDisk,
        Self::AddOverlap,
        Self::VoteForgetful,
        Self::TidyGaps,
    ];
}

#[cfg(feature = "mutations")]
mod switch {
    use std::cell::Cell;

    use super::Mutation;

    thread_local! {
        static ON: Cell<Option<Mutation>> = const { Cell::new(None) };
        static CUT: Cell<bool> = const { Cell::new(false) };
    }

    /// Breaks a rule, or none, on this thread from now on.
    pub fn switch(mutation: Option<Mutation>) {
        ON.set(mutation);
    }

    /// Whether a rule is broken on this thread.
    pub fn on(mutation: Mutation) -> bool {
        ON.get() == Some(mutation)
    }

    /// Makes deltas of every kind small and cut anywhere on this thread, or no longer. No bug: it
    /// is what the receiver of a very large state may see, and what every rule must survive.
    pub fn cut_deltas(cut: bool) {
        CUT.set(cut);
    }

    /// See [`cut_deltas`].
    pub fn cuts_deltas() -> bool {
        CUT.get()
    }
}

#[cfg(feature = "mutations")]
pub use switch::{cut_deltas, cuts_deltas, on, switch};

/// Whether a rule is broken: never, in this build.
#[cfg(not(feature = "mutations"))]
pub const fn on(_: Mutation) -> bool {
    false
}

/// Whether deltas are cut anywhere: never, in this build.
#[cfg(not(feature = "mutations"))]
pub const fn cuts_deltas() -> bool {
    false
}

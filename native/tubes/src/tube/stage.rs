//! How far a tube has come, derived from its two halves.

use super::half::Half;

/// The stages of a tube.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The nock has written an open request; the tip has not replied.
    Requested,
    /// The tip prepares the rings.
    Accepting,
    /// The tip has offered the rings.
    Offered,
    /// The nock has mapped the rings.
    Connecting,
    /// Both sides are connected.
    Connected,
    /// One side is closing.
    Closing,
    /// Both sides have closed.
    Closed,
    /// The tip has refused.
    Refused,
    /// One half is missing although both should exist.
    OneSided,
    /// The domain of the other half does not exist.
    Stale,
    /// The halves contradict each other, or no VM writes such values.
    Broken,
}

impl Stage {
    /// Its name in the output.
    pub fn word(self) -> &'static str {
        match self {
            Stage::Requested => "knocking",
            Stage::Accepting => "accepting",
            Stage::Offered => "offered",
            Stage::Connecting => "connecting",
            Stage::Connected => "connected",
            Stage::Closing => "closing",
            Stage::Closed => "closed",
            Stage::Refused => "refused",
            Stage::OneSided => "one-sided",
            Stage::Stale => "stale",
            Stage::Broken => "broken",
        }
    }

    /// The stage of a tube whose two domains exist.
    pub fn of(nock_half: &Half, tip_half: &Half) -> Stage {
        let (nock, tip) = (nock_half.state(), tip_half.state());
        let (nock_nonce, tip_nonce) = (nock_half.get("nonce"), tip_half.get("nonce"));
        // Until the tip has written this attempt's nonce, its values are those of an older attempt.
        let same = nock_nonce.is_none() || tip_nonce.is_none() || nock_nonce == tip_nonce;
        match (nock, tip) {
            (Some(2), None) => Stage::Requested,
            (Some(2), Some(_)) if !same => Stage::Requested,
            (_, Some(6)) if tip_half.get("error").is_some() => Stage::Refused,
            (Some(6), Some(6)) => Stage::Closed,
            (Some(5 | 6), _) | (Some(2 | 4), Some(5 | 6)) => Stage::Closing,
            (Some(2), Some(1)) => Stage::Accepting,
            (Some(2), Some(3)) => Stage::Offered,
            (Some(4), Some(3)) if same => Stage::Connecting,
            (Some(4), Some(4)) if same => Stage::Connected,
            // A half that we may not read is not missing.
            (Some(4), None) if *tip_half == Half::Denied => Stage::Connected,
            (None, Some(4)) if *nock_half == Half::Denied => Stage::Connected,
            _ if nock_half.missing() || tip_half.missing() => Stage::OneSided,
            _ => Stage::Broken,
        }
    }
}

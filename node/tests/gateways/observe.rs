//! What a peer can be seen to do from outside, and whoever looks.

pub(crate) mod collector;
pub(crate) mod mesh;
pub(crate) mod page;

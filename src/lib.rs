//! crate
pub mod clock;
pub mod http;
pub mod settings;
pub mod store;
pub mod token;

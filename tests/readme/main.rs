//! What a newcomer copies: the snippet and the commands of the READMEs, as they stand there.

mod commands;
mod snippet;

//! A stream cut into chunks in every way that matters: whoever reads it must see the same in all of them.

/// Cuts in two at every place, each byte alone, and as many cuts in three at random places as asked for, always the same.
pub(crate) fn cuts(bytes: &[u8], in_three: usize) -> impl Iterator<Item = Vec<&[u8]>> {
    let mut random = fastrand::Rng::with_seed(1);
    let in_two = (0..=bytes.len()).map(|at| vec![&bytes[..at], &bytes[at..]]);
    let in_three = (0..in_three).map(move |_| {
        let (one, two) = (random.usize(..=bytes.len()), random.usize(..=bytes.len()));
        let (one, two) = (one.min(two), one.max(two));
        vec![&bytes[..one], &bytes[one..two], &bytes[two..]]
    });
    in_two.chain([bytes.chunks(1).collect()]).chain(in_three)
}

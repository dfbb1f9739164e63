//! Attention over the cache: all query heads of a key head share one read of its keys and values.

use crate::cache::LayerCache;
use crate::exec::Exec;
use pith_format::LayerConfig;

/// Mixes values by the scores of `queries` for the tokens at positions `first …`, which are in the cache already.
///
/// `queries` and `out`: `tokens × heads × head_dim`. `scores`: for every thread, room for the query heads of a key
/// head times the positions.
pub(crate) fn attend(
    exec: &mut Exec,
    config: &LayerConfig,
    cache: &LayerCache,
    first: usize,
    queries: &[f32],
    scores: &mut [Vec<f32>],
    out: &mut [f32],
) {
    let (heads, kv_heads, head_dim) = (config.heads, config.kv_heads, config.head_dim);
    let tokens = out.len() / (heads * head_dim);
    let window = config.window.unwrap_or(usize::MAX);
    let visible = |token: usize| (first + token + 1).saturating_sub(window)..first + token + 1;
    let read: u64 =
        (0..tokens).map(|token| visible(token).len() as u64).sum::<u64>() * cache.position_bytes();
    exec.traffic.kv_read_bytes += read;
    // A chunk is one token's query heads of one key head.
    let chunk_len = heads / kv_heads * head_dim;
    exec.for_chunks(read as usize, out, chunk_len, scores, |kernels, index, out, scores| {
        let (token, kv_head) = (index / kv_heads, index % kv_heads);
        let positions = visible(token);
        let scores = &mut scores[..heads / kv_heads * positions.len()];
        let queries = &queries[index * chunk_len..][..chunk_len];
        kernels.scores(queries, cache.keys(kv_head, positions.clone()), config.attention_scale, scores);
        if let Some(cap) = config.attention_softcap {
            softcap(cap, scores);
        }
        for scores in scores.chunks_exact_mut(positions.len()) {
            kernels.softmax(scores);
        }
        kernels.mix(scores, cache.values(kv_head, positions), out);
    });
}

/// `x = cap · tanh(x / cap)`
pub(crate) fn softcap(cap: f32, x: &mut [f32]) {
    for x in x {
        *x = cap * (*x / cap).tanh();
    }
}

//! One pass over several sequences.

use crate::contain::pass;
use crate::engine::Engine;
use crate::error::RuntimeError;
use crate::forward::Call;
use crate::session::Session;
use pith_kernels::FEW_TOKENS;
use pith_meter::Traffic;
use std::sync::Arc;

impl Engine {
    /// Appends one token to each of several sequences in one pass over the weights: a
    /// [`Session::step`] for each. The [`Session::logits`] of each sequence equal, to the bit,
    /// those it would get alone.
    ///
    /// All sessions run the same model on this engine. Their contexts, positions and [cache
    /// types](crate::KvType) may differ. At most eleven go through the weights together, and no
    /// more than the first session's [batch](Session::batch); larger groups are split. Two-stage
    /// logits are computed for one sequence at a time. Where a [memory
    /// limit](crate::SessionOptions::memory) has weights read again for every pass, the first
    /// session's placement applies.
    ///
    /// Returns the traffic of the pass. Each session [counts](Session::traffic) its own keys and
    /// values and an equal share of everything else.
    ///
    /// Fails where a session cannot take its token, or has another engine or model:
    /// [`RuntimeError::Sequence`] names it. On any error no token is appended to any sequence.
    pub fn step(&self, batch: &mut [(&mut Session, u32)]) -> Result<Traffic, RuntimeError> {
        self.check(batch)?;
        let mut total = Traffic::default();
        let mut rest = &mut *batch;
        while !rest.is_empty() {
            let most = rest[0].0.batch().min(FEW_TOKENS - 1).min(rest.len());
            let (group, after) = rest.split_at_mut(most);
            rest = after;
            match step_group(group) {
                Ok(traffic) => total += traffic,
                Err(error) => {
                    // Logits already computed follow a token that was not appended.
                    batch.iter_mut().for_each(|(session, _)| session.logits_position = 0);
                    return Err(error);
                }
            }
        }
        for (session, token) in batch {
            session.tokens.push(*token);
            session.logits_position = session.tokens.len();
        }
        Ok(total)
    }

    fn check(&self, batch: &[(&mut Session, u32)]) -> Result<(), RuntimeError> {
        let Some((first, _)) = batch.first() else { return Ok(()) };
        for (index, (session, token)) in batch.iter().enumerate() {
            let foreign = |option| {
                let (found, expected) = ("another one".into(), "that of the whole batch".into());
                Err(RuntimeError::Option { option, found, expected })
            };
            let checked = if !std::ptr::eq(Arc::as_ptr(session.engine()), self) {
                foreign("the engine")
            } else if !Arc::ptr_eq(session.model(), first.model()) {
                foreign("the model")
            } else {
                session.check(&[*token], session.position())
            };
            checked.map_err(|source| RuntimeError::Sequence { index, source: Box::new(source) })?;
        }
        Ok(())
    }
}

/// Computes the logits of one group of sequences; their tokens are not appended yet.
fn step_group(group: &mut [(&mut Session, u32)]) -> Result<Traffic, RuntimeError> {
    if let [(session, token)] = group {
        // A single sequence: write its logits directly to their place.
        let position = session.position();
        session.step(*token)?;
        session.tokens.truncate(position);
        return Ok(session.last_traffic());
    }
    let (count, leader) = (group.len(), &mut *group[0].0);
    leader.reserve_logits(count)?;
    let before = leader.exec.traffic;
    let own = &mut [Traffic::default(); FEW_TOKENS][..count];
    pass(group, |group| &mut group[0].0.exec, |group| run(group, own))?;
    Ok(account(group, before, own))
}

/// Runs the pass on the first session's buffers. `own` receives the traffic of each sequence's own
/// keys and values.
fn run(group: &mut [(&mut Session, u32)], own: &mut [Traffic]) -> Result<(), RuntimeError> {
    let (leader, others) = group.split_first_mut().expect("a group is not empty");
    let Session { model, exec, buffers, all_logits, head, logits, caches, place, tokens, .. } =
        &mut *leader.0;
    let mut ids = vec![leader.1];
    let mut sequences = vec![place.sequence(tokens.len(), 1, caches)];
    let mut outputs = vec![(head, logits)];
    for (session, token) in others {
        let Session { head, logits, caches, place, tokens, .. } = &mut **session;
        ids.push(*token);
        sequences.push(place.sequence(tokens.len(), 1, caches));
        outputs.push((head, logits));
    }
    let mut call = Call::new(model, exec, &mut sequences);
    call.run(&ids, buffers)?;
    let (vocab_len, mut start) = (model.config().vocab_len, 0);
    while start < outputs.len() {
        let (head, logits) = &mut outputs[start];
        if head.is_staged() {
            call.project(buffers, start..start + 1, head, true, logits);
            start += 1;
            continue;
        }
        let exact = outputs[start..].iter().take_while(|(head, _)| !head.is_staged()).count();
        let all = &mut all_logits[..exact * vocab_len];
        call.project(buffers, start..start + exact, outputs[0].0, false, all);
        for ((_, logits), computed) in outputs[start..].iter_mut().zip(all.chunks_exact(vocab_len)) {
            logits.copy_from_slice(computed);
        }
        start += exact;
    }
    for (own, sequence) in own.iter_mut().zip(&sequences) {
        *own = sequence.traffic;
    }
    Ok(())
}

/// Divides the traffic counted by the first session since `before` among the group; returns all of
/// it.
fn account(group: &mut [(&mut Session, u32)], before: Traffic, own: &[Traffic]) -> Traffic {
    let total = group[0].0.exec.traffic - before;
    let alone = own.iter().fold(Traffic::default(), |mut sum, own| {
        sum += *own;
        sum
    });
    let shared = total - alone;
    let count = group.len() as u64;
    group[0].0.exec.traffic = before;
    for (index, ((session, _), own)) in group.iter_mut().zip(own).enumerate() {
        // The first session takes the remainder.
        let part = |bytes: u64| bytes / count + if index == 0 { bytes % count } else { 0 };
        let mut traffic = Traffic {
            weight_bytes: part(shared.weight_bytes),
            embedding_bytes: part(shared.embedding_bytes),
            kv_read_bytes: part(shared.kv_read_bytes),
            kv_write_bytes: part(shared.kv_write_bytes),
            activation_bytes: part(shared.activation_bytes),
        };
        traffic += *own;
        session.exec.traffic += traffic;
        session.last_traffic = traffic;
    }
    total
}

//! What a decoded token's time goes into.
//!
//! A session notes when each of its threads works ([`Session::record`]). Between its runs, the same
//! number of threads read the same matrices in the same order and bands, and do nothing else: the
//! time that memory takes. What a product takes beyond that is unpacking; what the threads wait for
//! each other is uneven; what remains of a job is starting and ending it.

use crate::error::BenchError;
use pith_kernels::probe::read_once;
use pith_meter::statistics::MedianRange;
use pith_runtime::{GenerateOptions, Job, Model, Pass, Sampler, SamplerOptions, Session};
use std::collections::BTreeMap;
use std::hint::black_box;
use std::ops::Range;
use std::sync::Barrier;
use std::time::{Duration, Instant};

/// Seconds of a token, by cause. They sum up to [`Wall::recorded`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Parts {
    /// Reading the weights, by threads that do nothing else, from large pages.
    pub memory: f64,
    /// What reading takes longer from the file's own pages.
    pub page_walks: f64,
    /// What products take beyond reading; negative where they read faster.
    pub unpacking: f64,
    /// Threads waiting for the last one of a product.
    pub uneven: f64,
    /// Starting and ending the threads' jobs.
    pub barriers: f64,
    /// Attention, with rotary positions and the cache.
    pub attention: f64,
    /// Norms, rounding of activations, residual sums.
    pub norms: f64,
    /// Outside of passes: sampling, text, notes.
    pub sampling: f64,
}

/// A role's matrices.
#[derive(Clone, Debug, PartialEq)]
pub struct RoleRate {
    /// Its name.
    pub role: &'static str,
    /// Bytes a token.
    pub bytes: u64,
    /// Bytes per second and thread in products, and in plain reading.
    pub product: f64,
    /// The same in plain reading.
    pub read: f64,
}

/// The decomposition of a token.
#[derive(Clone, Debug, PartialEq)]
pub struct Wall {
    /// Seconds of a token without notes: median of the rounds.
    pub plain: f64,
    /// Seconds of a token with notes.
    pub recorded: f64,
    /// Bytes of matrices a token.
    pub bytes: u64,
    /// Jobs a token.
    pub jobs: usize,
    /// Where the time goes.
    pub parts: Parts,
    /// Rates by role, in the order of a pass.
    pub roles: Vec<RoleRate>,
}

/// One round's figures.
struct Round {
    plain: f64,
    recorded: f64,
    jobs: usize,
    parts: Parts,
    /// Seconds of each role in products and in plain reading, all threads together.
    roles: BTreeMap<usize, [f64; 2]>,
}

impl Wall {
    /// Decodes `tokens` tokens after `prompt`, twice a round, with the session's greedy choice.
    ///
    /// `large`: the same model in large pages, where the session's model is not.
    pub fn measure(
        session: &mut Session,
        large: Option<&Model>,
        prompt: &[u32],
        tokens: usize,
        rounds: usize,
    ) -> Result<Self, BenchError> {
        let model = session.model().clone();
        session.record();
        decode(session, prompt, 4)?;
        let passes = session.recorded();
        let order = passes.last().ok_or(BenchError::Nothing { what: "the number of passes" })?.clone();
        let places: Vec<Range<usize>> =
            order.jobs.iter().flat_map(|job| job.matrices.iter().cloned()).collect();
        let roles = Roles::of(&model);
        let mut measured = Vec::with_capacity(rounds);
        for _ in 0..rounds.max(1) {
            measured.push(round(session, large, prompt, tokens, &places, &roles)?);
        }
        Ok(Self::of(&measured, &places, &roles))
    }

    fn of(rounds: &[Round], places: &[Range<usize>], roles: &Roles) -> Self {
        let of = |value: &dyn Fn(&Round) -> f64| {
            MedianRange::of(rounds.iter().map(value)).map_or(0.0, |range| range.median)
        };
        let mut bytes: BTreeMap<usize, u64> = BTreeMap::new();
        for place in places {
            *bytes.entry(roles.index(place.start)).or_default() += place.len() as u64;
        }
        let rate = |(&role, &bytes): (&usize, &u64)| {
            let seconds = |which: usize| of(&|round| round.roles[&role][which]);
            let rate = |which| bytes as f64 / seconds(which).max(f64::MIN_POSITIVE);
            RoleRate { role: roles.name(role), bytes, product: rate(0), read: rate(1) }
        };
        let part = |part: fn(&Parts) -> f64| of(&|round| part(&round.parts));
        Self {
            plain: of(&|round| round.plain),
            recorded: of(&|round| round.recorded),
            bytes: places.iter().map(|place| place.len() as u64).sum(),
            jobs: rounds.last().map_or(0, |round| round.jobs),
            parts: Parts {
                memory: part(|parts| parts.memory),
                page_walks: part(|parts| parts.page_walks),
                unpacking: part(|parts| parts.unpacking),
                uneven: part(|parts| parts.uneven),
                barriers: part(|parts| parts.barriers),
                attention: part(|parts| parts.attention),
                norms: part(|parts| parts.norms),
                sampling: part(|parts| parts.sampling),
            },
            roles: bytes.iter().map(rate).collect(),
        }
    }
}

fn round(
    session: &mut Session,
    large: Option<&Model>,
    prompt: &[u32],
    tokens: usize,
    places: &[Range<usize>],
    roles: &Roles,
) -> Result<Round, BenchError> {
    let (model, threads) = (session.model().clone(), session.threads());
    session.stop_recording();
    let plain = decode(session, prompt, tokens)?;
    let own = read(model.bytes(), places, threads);
    session.record();
    let recorded = decode(session, prompt, tokens)?;
    let passes = session.recorded();
    let read_large = large.map(|large| read(large.bytes(), places, threads));
    let passes = &passes[passes.len().saturating_sub(tokens - 1)..];
    let sum = |seconds: &[f64]| seconds.iter().sum::<f64>() / threads as f64;
    let (reading, memory) = (sum(&own), read_large.as_deref().map_or(sum(&own), sum));
    let mut parts = Parts { memory, page_walks: reading - memory, ..Parts::default() };
    let mut by_role: BTreeMap<usize, [f64; 2]> = BTreeMap::new();
    for (place, seconds) in places.iter().zip(&own) {
        by_role.entry(roles.index(place.start)).or_default()[1] += seconds;
    }
    let each = 1.0 / passes.len() as f64;
    let mut products = 0.0;
    for pass in passes {
        products += each * add(pass, threads, each, &mut parts, roles, &mut by_role);
    }
    parts.unpacking = products - reading;
    let within = passes.iter().map(|pass| length(&pass.time)).sum::<f64>() * each;
    parts.sampling = recorded - within;
    let jobs = passes.last().map_or(0, |pass| pass.jobs.len());
    Ok(Round { plain, recorded, jobs, parts, roles: by_role })
}

/// Adds a pass's times, `each` a pass; returns the threads' mean time in products.
fn add(
    pass: &Pass,
    threads: usize,
    each: f64,
    parts: &mut Parts,
    roles: &Roles,
    by_role: &mut BTreeMap<usize, [f64; 2]>,
) -> f64 {
    let (mut products, mut last, mut within_attention) = (0.0, pass.time.start, false);
    for job in &pass.jobs {
        let alone = length(&(last..job.time.start)) * each;
        last = job.time.end;
        let role = job.matrices.first().map(|place| roles.index(place.start));
        // What lies between the projections of the heads and that of their mix.
        let target = if within_attention { &mut parts.attention } else { &mut parts.norms };
        *target += alone;
        let Some(role) = role else {
            *target += length(&job.time) * each;
            continue;
        };
        within_attention = roles.name(role) == "attention.query";
        let shares = job.threads.iter().map(length);
        let (work, slowest) = (shares.clone().sum::<f64>(), shares.fold(0.0, f64::max));
        products += work / threads as f64;
        parts.uneven += (slowest - work / threads as f64) * each;
        parts.barriers += (length(&job.time) - slowest) * each;
        share_out(job, work * each, roles, by_role);
    }
    parts.norms += length(&(last..pass.time.end)) * each;
    products
}

/// Gives each of a job's matrices its part of the time, by bytes.
fn share_out(job: &Job, seconds: f64, roles: &Roles, by_role: &mut BTreeMap<usize, [f64; 2]>) {
    let bytes: usize = job.matrices.iter().map(Range::len).sum();
    for place in &job.matrices {
        by_role.entry(roles.index(place.start)).or_default()[0] +=
            seconds * place.len() as f64 / bytes as f64;
    }
}

/// Decodes and returns the seconds of a token, from the first decoded one on.
fn decode(session: &mut Session, prompt: &[u32], tokens: usize) -> Result<f64, BenchError> {
    let wrong = |error: pith_runtime::RuntimeError| BenchError::Work(Box::new(error));
    session.reset();
    let mut sampler = Sampler::new(SamplerOptions::greedy()).map_err(wrong)?;
    let options = GenerateOptions { max_tokens: Some(tokens), ignore_eos: true, ..Default::default() };
    let generation = session.generate(prompt, &mut sampler, options);
    let mut begin = None;
    let mut count = 0;
    for token in generation {
        token.map_err(wrong)?;
        match begin {
            // The first token comes from the prompt's pass.
            None => begin = Some(Instant::now()),
            Some(_) => count += 1,
        }
    }
    let begin = begin.ok_or(BenchError::Nothing { what: "the number of tokens" })?;
    Ok(begin.elapsed().as_secs_f64() / f64::from(count.max(1)))
}

/// Seconds that reading each of these places takes, all threads together: each reads its band, with
/// the faster of two patterns.
fn read(bytes: &[u8], places: &[Range<usize>], threads: usize) -> Vec<f64> {
    let patterns = [true, false].map(|prefetch| read_all(bytes, places, threads, prefetch));
    let total = |seconds: &[f64]| seconds.iter().sum::<f64>();
    let [ahead, plain] = patterns;
    if total(&ahead) < total(&plain) { ahead } else { plain }
}

fn read_all(bytes: &[u8], places: &[Range<usize>], threads: usize, prefetch: bool) -> Vec<f64> {
    let barrier = Barrier::new(threads);
    let run = |thread: usize| {
        barrier.wait();
        let band = |place: &Range<usize>| {
            let begin = Instant::now();
            let cut = |index: usize| place.start + (place.len() / 64 * index / threads) * 64;
            black_box(read_once(&bytes[cut(thread)..cut(thread + 1)], prefetch));
            begin.elapsed().as_secs_f64()
        };
        places.iter().map(band).collect::<Vec<f64>>()
    };
    let all: Vec<Vec<f64>> = std::thread::scope(|scope| {
        let run = &run;
        let others: Vec<_> = (1..threads).map(|thread| scope.spawn(move || run(thread))).collect();
        let own = run(0);
        let others = others.into_iter().map(|other| other.join().expect("reading does not panic"));
        others.chain([own]).collect()
    });
    (0..places.len()).map(|place| all.iter().map(|seconds| seconds[place]).sum()).collect()
}

fn length(time: &Range<Duration>) -> f64 {
    time.end.saturating_sub(time.start).as_secs_f64()
}

/// Roles of the tensors by their place in the file.
struct Roles(Vec<(usize, pith_format::Role)>);

impl Roles {
    fn of(model: &Model) -> Self {
        let entries = model.index().entries().iter();
        let mut roles: Vec<_> = entries.map(|entry| (entry.offset as usize, entry.id.role)).collect();
        roles.sort();
        Self(roles)
    }

    /// Number of the role, in the order of a pass, of the tensor that holds this place.
    fn index(&self, place: usize) -> usize {
        let at = self.0.partition_point(|(start, _)| *start <= place);
        let role = self.0[at.saturating_sub(1)].1;
        pith_format::Role::ALL.iter().position(|one| *one == role).unwrap_or_default()
    }

    fn name(&self, index: usize) -> &'static str {
        pith_format::Role::ALL[index].name()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pith_format::Role;

    fn milliseconds(range: &Range<u64>) -> Range<Duration> {
        Duration::from_millis(range.start)..Duration::from_millis(range.end)
    }

    fn job(time: Range<u64>, threads: Vec<Range<u64>>, matrix: Option<Range<usize>>) -> Job {
        let threads = threads.iter().map(milliseconds).collect();
        Job { time: milliseconds(&time), threads, matrices: matrix.into_iter().collect() }
    }

    #[test]
    fn the_parts_of_a_pass_sum_up_to_it() {
        let roles = Roles(vec![(0, Role::Query), (100, Role::AttentionOutput), (200, Role::Gate)]);
        let jobs = vec![
            // Both threads work for 8 and 6 ms of 10.
            job(2..12, vec![3..11, 4..10], Some(0..90)),
            // Attention.
            job(13..20, vec![13..19, 14..20], None),
            job(21..30, vec![21..30, 22..28], Some(100..200)),
            // One thread alone; the other has nothing to do.
            job(32..36, vec![32..35, 32..32], Some(200..260)),
        ];
        let pass = Pass { time: milliseconds(&(0..40)), jobs };
        let (mut parts, mut by_role) = (Parts::default(), BTreeMap::new());
        let products = add(&pass, 2, 1.0, &mut parts, &roles, &mut by_role);
        let near = |found: f64, expected: f64| assert!((found - expected / 1e3).abs() < 1e-9, "{found}");
        near(products, 7.0 + 7.5 + 1.5);
        near(parts.uneven, 1.0 + 1.5 + 1.5);
        near(parts.barriers, 2.0 + 0.0 + 1.0);
        near(parts.attention, 1.0 + 7.0 + 1.0);
        near(parts.norms, 2.0 + 2.0 + 4.0);
        near(products + parts.uneven + parts.barriers + parts.attention + parts.norms, 40.0);
        near(by_role[&roles.index(0)][0], 14.0);
        near(by_role[&roles.index(250)][0], 3.0);
        assert_eq!(roles.name(roles.index(150)), "attention.output");
    }

    #[test]
    fn every_place_is_read_by_each_number_of_threads() {
        let bytes = vec![1; 64 * 100];
        for threads in [1, 2, 3] {
            let seconds = read(&bytes, &[0..640, 640..6400], threads);
            assert!(seconds.len() == 2 && seconds.iter().all(|seconds| *seconds > 0.0), "{seconds:?}");
        }
    }
}

//! A step allocates nothing, as counted by this test binary's allocator.

#[path = "support/mod.rs"]
mod support;

use pith_format::{NormKind, Role};
use pith_runtime::{KvType, Sampler, SamplerOptions, Session, SessionOptions};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts every allocation of every thread.
struct Counting;

static COUNT: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is forwarded to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's guarantees are those of the system allocator.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The only test of this binary, so that no other allocates meanwhile.
#[test]
fn steps_and_prompts_allocate_nothing() {
    let mut plan = support::llama();
    plan.config.norm = NormKind::Layer;
    plan.config.logit_softcap = Some(9.0);
    support::attention(&mut plan.config.layers[0]).window = Some(4);
    support::attention(&mut plan.config.layers[1]).softcap = Some(9.0);
    plan.roles =
        Role::ALL.iter().copied().filter(|&role| role != Role::Tokenizer && role != Role::Head).collect();
    let model = plan.build().open();
    for kernels in pith_kernels::available() {
        // The reference kernels favour clarity, and allocate their own vectors.
        if kernels.name() == "reference" {
            continue;
        }
        for kv_type in KvType::ALL {
            for threads in [1, 3] {
                let options = SessionOptions {
                    kv_type,
                    threads: Some(threads),
                    kernels: Some(kernels.name().into()),
                    ..SessionOptions::default()
                };
                let mut session = Session::new(Arc::clone(&model), options).unwrap();
                let mut sampler = Sampler::new(SamplerOptions::default()).unwrap();
                // The very first call may set up memory of the system's locks and of the sampler.
                session.prefill(&[1, 2, 3]).unwrap();
                sampler.sample(session.logits()).unwrap();
                let before = COUNT.load(Ordering::Relaxed);
                session.prefill(&[4, 5, 6, 7, 8, 9]).unwrap();
                session.prefill(&[3; 26]).unwrap();
                for token in 10..30 {
                    session.step(token).unwrap();
                }
                sampler.sample(session.logits()).unwrap();
                let count = COUNT.load(Ordering::Relaxed) - before;
                assert_eq!(count, 0, "{} with {kv_type} on {threads} threads", kernels.name());
            }
        }
    }
}

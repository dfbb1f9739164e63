//! The options of a `llama-bench` build, from its own help: builds of the family differ.

use pith_bench::Test;

/// The options of one build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dialect {
    /// `-d`: tokens in the context before a test.
    depth: bool,
    /// `-gp`: generation after a prompt, for builds without `-d`.
    behind_prompt: bool,
    /// Whether `-fa` takes `on` and `off` instead of 1 and 0.
    words: bool,
    /// `-lm`: the way to load a model.
    load_mode: bool,
    /// `-mmp`: whether to map the model.
    mmap: bool,
    /// `-rtr`: repacks weights for the kernels while loading, as ik_llama.cpp does.
    run_time_repack: bool,
    /// `-thp`: huge pages.
    huge_pages: bool,
}

impl Dialect {
    /// Parses the help; the error names the missing option if it is no `llama-bench`.
    pub fn of(help: &str) -> Result<Self, String> {
        for option in ["--n-prompt", "--n-gen", "--threads", "--repetitions", "json"] {
            if !help.contains(option) {
                return Err(format!("its --help does not speak of {option}, as llama-bench's does"));
            }
        }
        Ok(Self {
            depth: help.contains("--n-depth"),
            behind_prompt: help.contains("-gp <"),
            words: help.contains("--flash-attn <on|off"),
            load_mode: help.contains("--load-mode"),
            mmap: help.contains("-mmp,"),
            run_time_repack: help.contains("-rtr,"),
            huge_pages: help.contains("-thp,"),
        })
    }

    /// The program's name, unless the user gives one.
    pub fn family(&self) -> &'static str {
        if self.run_time_repack { "ik_llama.cpp" } else { "llama.cpp" }
    }

    /// The arguments for one run of a test.
    pub fn test_args(&self, test: Test, threads: usize) -> Result<Vec<String>, String> {
        let mut args: Vec<String> = match test {
            Test { prefill: true, tokens, .. } => {
                vec!["-p".into(), tokens.to_string(), "-n".into(), "0".into()]
            }
            Test { tokens, depth, .. } if depth > 0 && !self.depth && self.behind_prompt => {
                ["-p", "0", "-n", "0", "-gp"]
                    .map(String::from)
                    .into_iter()
                    .chain([format!("{depth},{tokens}")])
                    .collect()
            }
            Test { tokens, .. } => vec!["-p".into(), "0".into(), "-n".into(), tokens.to_string()],
        };
        if test.depth > 0 && self.depth {
            args.extend(["-d".into(), test.depth.to_string()]);
        } else if test.depth > 0 && (test.prefill || !self.behind_prompt) {
            return Err(format!("it has no option for {test}"));
        }
        args.extend(["-t", &threads.to_string(), "-r", "1", "-o", "json"].map(String::from));
        Ok(args)
    }

    /// Settings that may be the fastest: flash attention on or off, model mapped or loaded,
    /// repacked or not.
    pub fn settings(&self) -> Vec<String> {
        let [off, on] = if self.words { ["-fa off", "-fa on"] } else { ["-fa 0", "-fa 1"] };
        if self.run_time_repack {
            let mut list = vec![format!("{on} -rtr 1"), format!("{on} -rtr 0"), format!("{off} -rtr 1")];
            if self.huge_pages {
                list.push(format!("{on} -rtr 1 -thp 1"));
            }
            return list;
        }
        let mut list = vec![on.to_string(), off.to_string()];
        if self.load_mode {
            list.push(format!("{on} -lm none"));
        } else if self.mmap {
            list.push(format!("{on} -mmp 0"));
        }
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LLAMA: &str = "
  -r, --repetitions <n>    number of times (default: 5)
  -o, --output <csv|json|jsonl|md|sql>
  -p, --n-prompt <n>
  -n, --n-gen <n>
  -d, --n-depth <n>
  -t, --threads <n>
  -fa, --flash-attn <on|off|auto>
  -lm, --load-mode <auto|none|mmap|mlock|mmap+mlock|dio>
";
    const IK: &str = "
  -p, --n-prompt <n>
  -n, --n-gen <n>
  -gp <pp,tg>
  -t, --threads <n>
  -fa, --flash-attn <0|1>
  -mmp, --mmap <0|1>
  -r, --repetitions <n>
  -o, --output <csv|json|md|sql>
  -rtr, --run-time-repack <0|1>
  -thp, --transparent-huge-pages <0|1>
";

    fn test(name: &str) -> Test {
        name.parse().unwrap()
    }

    #[test]
    fn each_dialect_gets_its_own_arguments() {
        let (llama, ik) = (Dialect::of(LLAMA).unwrap(), Dialect::of(IK).unwrap());
        assert_eq!((llama.family(), ik.family()), ("llama.cpp", "ik_llama.cpp"));
        let line = |dialect: Dialect, name| dialect.test_args(test(name), 2).unwrap().join(" ");
        assert_eq!(line(llama, "pp512"), "-p 512 -n 0 -t 2 -r 1 -o json");
        assert_eq!(line(llama, "tg128@2048"), "-p 0 -n 128 -d 2048 -t 2 -r 1 -o json");
        assert_eq!(line(ik, "tg128"), "-p 0 -n 128 -t 2 -r 1 -o json");
        assert_eq!(line(ik, "tg128@2048"), "-p 0 -n 0 -gp 2048,128 -t 2 -r 1 -o json");
        assert!(ik.test_args(test("pp16@64"), 1).unwrap_err().contains("pp16@64"));
        assert_eq!(llama.settings(), ["-fa on", "-fa off", "-fa on -lm none"]);
        assert_eq!(ik.settings(), ["-fa 1 -rtr 1", "-fa 1 -rtr 0", "-fa 0 -rtr 1", "-fa 1 -rtr 1 -thp 1"]);
    }

    #[test]
    fn a_program_that_is_not_llama_bench_is_refused() {
        let error = Dialect::of("usage: ls [OPTION]... [FILE]...").unwrap_err();
        assert!(error.contains("--n-prompt"), "{error}");
    }
}

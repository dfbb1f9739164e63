//! Speed on paper.
use clap::Args;
/// `cargo xtask mca`
#[derive(Debug, Args)]
pub struct McaArgs {}
/// Nothing yet.
pub fn mca(_: McaArgs) -> anyhow::Result<()> {
    Ok(())
}

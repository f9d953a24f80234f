//! What is measured in passing, and what that needs to be known.

use super::Context;
use crate::config::{model::Learning, section::At, spec::LearningSpec};

impl Context<'_> {
    /// `region` is the one that the server stands in, as written.
    pub(super) fn build_learning(&self, spec: &LearningSpec, region: &At<String>) -> Learning {
        let (learn, prospect) = (spec.learn.value, spec.prospect.value);
        if learn && region.value.is_empty() && region.is_sound() {
            let example = self.regions.first().map_or("us", |region| region.name.value.as_str());
            self.problems.add(
                &spec.learn.span,
                "`learn` measures the way to the region that this server stands in, and none is named",
                format!("write region = {example:?} in [server], with the region where this server is"),
            );
        }
        if prospect > 0.0 && !learn && spec.learn.is_sound() {
            self.problems.add(
                &spec.prospect.span,
                "`prospect` asks for handshakes, and without `learn` nothing measures them",
                "write learn = true beside it, or remove `prospect`",
            );
        }
        Learning { is_on: learn, prospect }
    }
}

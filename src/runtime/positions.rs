//! Where inputs are read from: at the start, and when a log does not hold the position.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::application::Application;
use super::clock::Now;
use super::commit::Failure;
use super::stream_thread::{StreamThread, later};
use crate::client::Watermarks;
use crate::error::{Error, Result};
use crate::record::{OffsetAndMetadata, TopicPartition};
use crate::task::CommitPoint;
use crate::topology::OffsetReset;

/// Looks at a log that ends before the position, until it is believed. A broker that comes back from a kill may not know
/// yet where its logs end.
const LOOKS: usize = 40;

/// The pause between two looks at the same log.
const LOOK_PAUSE: Duration = Duration::from_millis(if cfg!(test) { 1 } else { 250 });

/// A position that its log did not hold.
#[derive(Debug)]
pub(super) struct Astray {
    looks: usize,
    last: Now,
    /// The topic in which the position was found missing before, when it was another one than at the start.
    topic_id: Option<Uuid>,
}

/// What becomes of a position that a consumer called out of range.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// The log holds it.
    Stay,
    /// Not to be decided yet.
    LookAgain,
    /// The log was cut off before it: what the log holds has been read.
    GoToEnd,
    /// Its records were deleted, or it belonged to another topic of this name.
    Reset,
}

fn judge(position: i64, marks: Watermarks, is_other_topic: bool, looks: usize) -> Verdict {
    match position {
        _ if is_other_topic => Verdict::Reset,
        _ if (marks.start..=marks.end).contains(&position) => Verdict::Stay,
        _ if position < marks.start => Verdict::Reset,
        _ if looks < LOOKS => Verdict::LookAgain,
        _ => Verdict::GoToEnd,
    }
}

impl StreamThread {
    /// A consumer called the position of an input out of range. That is taken for true only where the log says the same:
    /// to begin elsewhere for nothing would read input twice, or not at all.
    pub(super) fn look_at_position(&mut self, input: &TopicPartition) -> Result<(), Failure> {
        let Some(position) = self.consumer.position(input) else { return Ok(()) };
        let now = Now::read();
        let known = self.astray.get(input);
        if known.is_some_and(|astray| now.since(astray.last) < LOOK_PAUSE) {
            return Ok(());
        }
        let (looks, known_id) = known.map_or((0, None), |astray| (astray.looks, astray.topic_id));
        let own = std::slice::from_ref(input);
        let (topics, marks) = self
            .app
            .with_admin(|admin| Ok((admin.topics(&[Arc::clone(&input.topic)])?, admin.watermarks(own)?)))
            .map_err(later)?;
        let topic_id = topics.into_iter().flatten().next().and_then(|topic| topic.id);
        let Some(marks) = marks.first().copied() else { return Ok(()) };
        let known_id = known_id.or_else(|| self.app.input_ids.get(&input.topic).copied());
        let is_other_topic = matches!((known_id, topic_id), (Some(known), Some(now)) if known != now);
        let verdict = judge(position, marks, is_other_topic, looks + 1);
        let looks = if verdict == Verdict::LookAgain { looks + 1 } else { 0 };
        let Watermarks { start, end } = marks;
        let say = |what: &str| {
            tracing::warn!(
                topic = &*input.topic,
                partition = input.partition,
                offset = position,
                start,
                end,
                "the position is not in the log: {what}"
            );
        };
        match verdict {
            Verdict::Stay => self.consumer.assign(&[(input.clone(), position)]).map_err(later)?,
            Verdict::LookAgain if looks == 1 => say("waiting whether the log comes back"),
            Verdict::LookAgain => {}
            Verdict::GoToEnd | Verdict::Reset => {
                let elsewhere = match (reset_policy(&self.app, input), &verdict) {
                    (OffsetReset::None, _) => return Err(Failure::Fatal(not_to_be_reset(input, position, marks))),
                    (_, Verdict::GoToEnd) => end,
                    _ => reset(&self.app, input, now).map_err(later)?,
                };
                self.go_on_from(input, elsewhere)?;
                say(&match (verdict, is_other_topic) {
                    (Verdict::GoToEnd, _) => {
                        format!("records were lost, reading goes on at the end, offset {elsewhere}")
                    }
                    (_, true) => format!("the topic is another one, reading goes on at offset {elsewhere}"),
                    (_, false) => {
                        format!("records were deleted before they were read, reading goes on at offset {elsewhere}")
                    }
                });
            }
        }
        self.astray.insert(input.clone(), Astray { looks, last: now, topic_id: topic_id.or(known_id) });
        Ok(())
    }

    /// An input is read from elsewhere, and the next commit says so. What has been processed is committed first: neither
    /// an abort nor a crash may bring the old position back and lead to another new one.
    fn go_on_from(&mut self, input: &TopicPartition, offset: i64) -> Result<(), Failure> {
        let now = Now::read();
        self.commit(now)?;
        let Some(running) = self.tasks.iter_mut().find(|running| running.inputs.contains(input)) else {
            return Ok(());
        };
        running.task.go_on_from(input, offset, now.wall_ms).map_err(Failure::Fatal)?;
        running.dropped = 0;
        let positions: Vec<_> =
            running.task.committed_positions().map(|(input, offset)| (input.clone(), offset)).collect();
        self.consumer.assign(&positions).map_err(later)
    }
}

/// Where each input goes on: where it was committed, otherwise where its source or the application says.
pub(super) fn start_points(
    app: &Application,
    partitions: &[TopicPartition],
    committed: &[Option<OffsetAndMetadata>],
    now: Now,
) -> Result<Vec<CommitPoint>> {
    let mut points = Vec::with_capacity(partitions.len());
    for (partition, committed) in partitions.iter().zip(committed) {
        points.push(match committed {
            Some(committed) => CommitPoint::decode(committed),
            None => CommitPoint::starting_at(reset(app, partition, now)?),
        });
    }
    Ok(points)
}

fn reset(app: &Application, partition: &TopicPartition, now: Now) -> Result<i64> {
    let own = std::slice::from_ref(partition);
    let one = |offsets: Vec<i64>| offsets.first().copied().unwrap_or(0);
    let marks = |is_end: bool| -> Result<i64> {
        let marks = app.with_admin(|admin| admin.watermarks(own))?;
        Ok(one(marks.iter().map(|marks| if is_end { marks.end } else { marks.start }).collect()))
    };
    match reset_policy(app, partition) {
        OffsetReset::Earliest => marks(false),
        OffsetReset::Latest => marks(true),
        OffsetReset::ByDuration(age) => {
            let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
            Ok(one(app.with_admin(|admin| admin.offsets_for_time(own, now.wall_ms.saturating_sub(age)))?))
        }
        OffsetReset::None => Err(Error::invalid(format!(
            "nothing is committed for {partition} and its offset reset is none: commit a position for group {}, or \
             choose earliest or latest",
            app.id()
        ))),
    }
}

/// Repartition topics are always read from their start: what is in them has not been processed.
fn reset_policy(app: &Application, partition: &TopicPartition) -> OffsetReset {
    let mut repartition = app.topology.repartition_topics().keys();
    if repartition.any(|topic| app.topology.full_name(app.id(), topic) == partition.topic) {
        return OffsetReset::Earliest;
    }
    app.topology.offset_reset(&partition.topic).unwrap_or(app.config.offset_reset)
}

#[cold]
fn not_to_be_reset(input: &TopicPartition, position: i64, marks: Watermarks) -> Error {
    Error::invalid(format!(
        "offset {position} of {input}, where reading goes on, is not in the log, which holds {} to {}, and its offset \
         reset is none: commit another position, or choose earliest or latest",
        marks.start, marks.end
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARKS: Watermarks = Watermarks { start: 10, end: 20 };

    #[test]
    fn a_position_in_the_log_is_kept() {
        for position in [10, 15, 20] {
            assert_eq!(judge(position, MARKS, false, 1), Verdict::Stay);
        }
    }

    #[test]
    fn a_position_behind_the_end_is_looked_at_again_and_then_believed() {
        assert_eq!(judge(21, MARKS, false, 1), Verdict::LookAgain);
        assert_eq!(judge(21, MARKS, false, LOOKS), Verdict::GoToEnd);
    }

    #[test]
    fn deleted_records_and_another_topic_are_left_to_the_policy() {
        assert_eq!(judge(9, MARKS, false, 1), Verdict::Reset);
        for position in [9, 15, 21] {
            assert_eq!(judge(position, MARKS, true, 1), Verdict::Reset);
        }
    }
}

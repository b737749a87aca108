//! What holds for any input.

use crate::common::Scratch;
use bitfit::internal::bounds::Count;
use bitfit::internal::config::{RunConfig, TrainingSection};
use bitfit::internal::data::{
    self, Columns, Dataset, LabelColumns, Labels, Sampler, Target, epoch_order,
};
use bitfit::internal::freeze::Layers;
use bitfit::internal::models::TaskType;
use bitfit::internal::optim::{LrSchedule, Schedule};
use bitfit::internal::sealed;
use bitfit::internal::train::Policy;
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tch::Tensor;

fn count(number: usize) -> Count {
    (number as u64).try_into().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Each epoch visits each row once, wherever a run is taken up in it, and no step takes more
    /// than it may.
    #[test]
    fn every_row_is_visited_once_an_epoch(
        lengths in vec(2usize..40, 1..200),
        at_once in 1usize..20,
        tokens in prop::option::of(40usize..200),
        parts in 1usize..5,
        seed: u64,
        epoch in 0u64..30,
    ) {
        let training = TrainingSection {
            per_device_train_batch_size: count(at_once),
            max_tokens_per_batch: tokens.map(|most| (most as u64).try_into().unwrap()),
            gradient_accumulation_steps: count(parts),
            num_train_epochs: Some(count(epoch as usize + 1)),
            ..TrainingSection::default()
        };
        let step = training.batch_size().times(parts);
        let sampler = Sampler { lengths: lengths.clone(), seed, shuffle: true, step };
        let policy = Policy::new(&training, &sampler);
        let order = epoch_order(lengths.len(), seed, epoch, true);
        let chunks: Vec<&[usize]> = step.cut(&order, &lengths).collect();
        for rows in &chunks {
            match tokens {
                None => prop_assert!(rows.len() <= at_once * parts),
                Some(most) => prop_assert!(rows.iter().map(|&r| lengths[r]).sum::<usize>() <= most * parts),
            }
        }
        let steps = chunks.len() as u64;
        let before = policy.total - steps;
        let mut visited: Vec<usize> = (1..=steps)
            .flat_map(|step| {
                assert_eq!(policy.cursor(before + step), (epoch, step - 1));
                chunks[policy.cursor(before + step).1 as usize].to_vec()
            })
            .collect();
        visited.sort_unstable();
        prop_assert_eq!(visited, (0..lengths.len()).collect::<Vec<_>>());
    }

    #[test]
    fn a_rate_is_never_negative_nor_above_its_own(warmup in 0u64..50, total in 1u64..100, step in 1u64..200) {
        for lr_schedule in [LrSchedule::Constant, LrSchedule::Linear, LrSchedule::Cosine] {
            let factor = Schedule { lr_schedule, warmup, total }.factor(step);
            prop_assert!((0.0..=1.0).contains(&factor), "{}", factor);
        }
    }

    /// What is sealed is read back to the bit, and one changed byte is noticed.
    #[test]
    fn a_sealed_file_is_what_was_written(
        metadata in btree_map(".{0,20}", ".{0,40}", 0..4),
        values in btree_map("[a-z.\"\\\\]{1,12}", vec(any::<f32>(), 0..9), 0..4),
        place: prop::sample::Index,
        bit in 0u8..8,
    ) {
        prop_assume!(!metadata.contains_key("sha256") && !values.contains_key("__metadata__"));
        let scratch = Scratch::new();
        let tensors: BTreeMap<String, Tensor> =
            values.iter().map(|(name, values)| (name.clone(), Tensor::from_slice(values))).collect();
        let mut bytes = sealed::to_bytes(metadata.clone(), &tensors).unwrap();
        let mut read = sealed::read(&scratch.write("whole", &bytes)).unwrap();
        prop_assert!(read.checksum.is_some() && read.metadata.remove("sha256").is_some());
        prop_assert_eq!(read.metadata, metadata);
        for (name, values) in values {
            let found = Vec::<f32>::try_from(&read.tensors[&name]).unwrap();
            prop_assert!(found.iter().zip(&values).all(|(a, b)| a.to_bits() == b.to_bits()));
        }
        let place = place.index(bytes.len());
        bytes[place] ^= 1 << bit;
        let read = sealed::read(&scratch.write("changed", &bytes));
        prop_assert!(read.is_err() || read.is_ok_and(|read| read.checksum.is_none()));
    }

    #[test]
    fn any_text_is_layers_or_none(text in "[-0-9, ]{0,12}|.{0,8}") {
        let _ = Layers::parse(&text);
    }

    /// A configuration is read or refused, whatever is in it and in `--set`.
    #[test]
    fn any_configuration_is_read_or_refused(
        key in "(model|data|training|bitfit)\\.[a-z_]{0,20}",
        value in "[-0-9.e\"\\[\\]{}a-z= ]{0,12}",
        line in ".{0,30}",
    ) {
        let scratch = Scratch::new();
        let _ = RunConfig::read(scratch.path("config.toml"), &[format!("{key}={value}")]);
        let path = scratch.write("any.toml", format!("[training]\n{line}\n"));
        let _ = RunConfig::read(&path, &[]);
    }

    /// Labels that are learned from one list and met in another end in the classes that the rule
    /// below gives, or in an error.
    #[test]
    fn labels_of_any_two_lists_are_the_classes_of_the_rule(
        first in vec(prop::sample::select(spellings()), 1..7),
        second in vec(prop::sample::select(spellings()), 1..7),
        like_the_first in any::<bool>(),
        declared: bool,
        format in 0usize..4,
    ) {
        let scratch = Scratch::new();
        let mut names: Vec<String> = vec![];
        for name in &first {
            if !names.contains(&name.to_string()) {
                names.push(name.to_string());
            }
        }
        // Lists that have much in common, too: each label in some spelling of the first's.
        let second: Vec<&str> = match like_the_first {
            false => second,
            true => second
                .iter()
                .enumerate()
                .map(|(i, other)| {
                    let group = group_of(first[i % first.len()]).1;
                    group[other.len() % group.len()]
                })
                .collect(),
        };
        let labels = if declared {
            Some(Labels { names, declared })
        } else {
            let (path, table) = written(&scratch, format, &first);
            let found = Labels::of(TaskType::Classification, &path, &table, false).ok();
            prop_assert_eq!(found.clone().map(|labels| labels.names), rule_of_learning(names));
            found
        };
        if let Some(labels) = labels {
            let (_, table) = written(&scratch, format, &second);
            let targets = labels.targets(TaskType::Classification, &table.rows).ok();
            let class = |label: &&str| rule_of_classes(label, &labels.names, declared, &second);
            let expected: Option<Vec<usize>> = second.iter().map(class).collect();
            prop_assert_eq!(targets, expected.map(|classes| classes.into_iter().map(Target::Class).collect()));
        }
    }

    /// Lists of numbers are 0 or 1 for each label, or class numbers, or an error.
    #[test]
    fn lists_of_numbers_are_the_labels_of_the_rule(
        lists in vec(vec(0u32..4, 0..5), 1..5),
        like_flags in any::<bool>(),
        width in 1usize..5,
        csv: bool,
    ) {
        let scratch = Scratch::new();
        // Random lists are seldom 0 and 1 in equal number.
        let lists: Vec<Vec<u32>> = match like_flags {
            true => lists.iter().map(|list| (0..width).map(|i| list.get(i).map_or(0, |x| x % 2)).collect()).collect(),
            false => lists,
        };
        let separator = csv.then(|| ";".to_owned());
        let cell = |list: &Vec<u32>, between: &str| {
            list.iter().map(u32::to_string).collect::<Vec<_>>().join(between)
        };
        let text: String = match csv {
            true => "text,label\n".to_owned()
                + &lists.iter().map(|list| format!("a,{}\n", cell(list, ";"))).collect::<String>(),
            false => lists.iter().map(|list| format!("{{\"text\": \"a\", \"label\": [{}]}}\n", cell(list, ","))).collect(),
        };
        let path = scratch.write(if csv { "t.csv" } else { "t.jsonl" }, text);
        let columns = Columns {
            text: "text".into(),
            text_pair: None,
            labels: LabelColumns::One { name: "label".into(), separator },
            header: true,
            delimiter: None,
            skip_bad_rows: false,
        };
        let table = data::read(&path, &columns).unwrap();
        let task = TaskType::MultiLabel;
        let numbers = lists.concat();
        let flags = !numbers.is_empty() && numbers.iter().all(|&x| x < 2);
        let different = |list: &Vec<u32>| list.iter().collect::<BTreeSet<_>>().len() == list.len();
        let names: BTreeSet<u32> = numbers.iter().copied().collect();
        let learned = !flags && !names.is_empty() && lists.iter().all(different);
        let expected = learned.then(|| names.iter().map(u32::to_string).collect::<Vec<_>>());
        prop_assert_eq!(Labels::of(task, &path, &table, false).ok().map(|labels| labels.names), expected);
        let labels = Labels { names: (0..width).map(|i| format!("label {i}")).collect(), declared: true };
        let row = |list: &Vec<u32>| -> Option<Target> {
            let mut has: Vec<u32> = match flags {
                true if list.len() != width => return None,
                true => (0..).zip(list).filter(|(_, x)| **x == 1).map(|(i, _)| i).collect(),
                false if list.iter().any(|&x| x as usize >= width) => return None,
                false => list.clone(),
            };
            has.sort_unstable();
            Some(Target::Labels { present: has, num_labels: width })
        };
        let all = lists.iter().map(row).collect::<Option<Vec<_>>>();
        let expected = all.filter(|_| flags || lists.iter().all(different));
        prop_assert_eq!(labels.targets(task, &table.rows).ok(), expected);
    }

    /// A table is read or refused, and what is read has what was asked for.
    #[test]
    fn any_table_is_read_or_refused(text in "(text|label|[a-c\",\t\r\n{}:]){0,40}", kind in 0usize..3, header: bool) {
        let scratch = Scratch::new();
        let path = scratch.write(["t.csv", "t.tsv", "t.jsonl"][kind], text);
        let columns = Columns {
            text: if header { "text".into() } else { "1".into() },
            text_pair: None,
            labels: LabelColumns::One { name: if header { "label".into() } else { "2".into() }, separator: None },
            header,
            delimiter: None,
            skip_bad_rows: false,
        };
        if let Ok(table) = data::read(&path, &columns) {
            prop_assert!(table.rows.iter().all(|row| row.labels().len() == 1));
        }
    }
}

/// Labels by what they look like: each line has spellings of one, and the number that it is, if it
/// is one.
type Group = (Option<f64>, &'static [&'static str]);
const GROUPS: [Group; 15] = [
    (None, &["spam", "Spam", "SPAM"]),
    (None, &["stra\u{df}e", "STRASSE", "Strasse"]),
    (None, &["caf\u{e9}", "cafe\u{301}", "CAF\u{c9}"]),
    (None, &["not spam", "Not  Spam", "not\u{a0}spam"]),
    (None, &["LABEL_0", "label_0"]),
    (None, &["none", "None", "NONE"]),
    (None, &["nan", "NaN"]),
    (None, &["null", "NULL"]),
    (None, &["N/A", "n/a"]),
    (Some(0.0), &["0", "0.0", "-0", "00"]),
    (Some(1.0), &["1", "1.0", "01", "+1", "1e0"]),
    (Some(2.0), &["2", "2.00", "20e-1"]),
    (Some(10.0), &["10", "1e1"]),
    (Some(0.5), &["0.5", ".5", "5e-1"]),
    // No number that anybody means.
    (None, &["1e-9223372036854775808", "1E-9223372036854775808"]),
];

fn spellings() -> Vec<&'static str> {
    GROUPS.iter().flat_map(|(_, spellings)| *spellings).copied().collect()
}

fn group_of(label: &str) -> Group {
    *GROUPS.iter().find(|(_, spellings)| spellings.contains(&label)).unwrap()
}

fn is_number(label: &str) -> bool {
    group_of(label).0.is_some()
}

/// Numbers look alike by their value among numbers alone.
fn alike(a: &str, b: &str, among_numbers: bool) -> bool {
    match is_number(a) && !among_numbers {
        true => a == b,
        false => group_of(a).1 == group_of(b).1,
    }
}

/// What is a class only where somebody names it; "none" may be one, but not among numbers.
fn is_missing(label: &str, among_numbers: bool) -> bool {
    ["nan", "NaN", "null", "NULL", "None", "N/A", "n/a"].contains(&label)
        || (among_numbers && ["none", "NONE"].contains(&label))
}

/// The classes of labels that nobody named, each of which is in the list once.
fn rule_of_learning(mut labels: Vec<String>) -> Option<Vec<String>> {
    let there: Vec<&String> = labels.iter().filter(|label| !is_missing(label, true)).collect();
    let numbers = !there.is_empty() && there.iter().all(|label| is_number(label));
    for (i, label) in labels.iter().enumerate() {
        if is_missing(label, numbers)
            || labels[..i].iter().any(|other| alike(label, other, numbers))
        {
            return None;
        }
    }
    labels.sort();
    if labels.iter().all(|label| label.bytes().all(|byte| byte.is_ascii_digit() || byte == b'+')) {
        labels.sort_by_key(|label| label.trim_start_matches('+').parse::<u64>().unwrap());
    }
    (labels.len() > 1).then_some(labels)
}

/// The class of a label that stands among `labels`.
fn rule_of_classes(
    label: &str,
    names: &[String],
    declared: bool,
    labels: &[&str],
) -> Option<usize> {
    let numbers = names.iter().all(|name| is_number(name));
    let like = |label: &str| -> Vec<usize> {
        let classes = names.iter().enumerate();
        classes.filter(|(_, name)| alike(label, name, numbers)).map(|(class, _)| class).collect()
    };
    if let Some(class) = names.iter().position(|name| name == label) {
        return Some(class);
    }
    let same: BTreeSet<&str> =
        labels.iter().copied().filter(|other| alike(label, other, numbers)).collect();
    match like(label)[..] {
        [class] => return Some(class).filter(|_| same.len() == 1),
        [] => {}
        _ => return None,
    }
    let class = group_of(label).0.filter(|number| number.fract() == 0.0)? as usize;
    let no_name = labels.iter().all(|label| like(label).is_empty());
    let may = declared && no_name && !names.iter().any(|name| is_number(name));
    Some(class).filter(|&class| may && class < names.len())
}

/// A Parquet file of the text `a` with each of the labels.
fn parquet_of_texts(labels: &[&str]) -> Vec<u8> {
    let schema = "message rows { required binary text (UTF8); required binary label (UTF8); }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let mut writer = SerializedFileWriter::new(vec![], schema, Default::default()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    for values in [&vec!["a"; labels.len()], labels] {
        let values: Vec<ByteArray> = values.iter().map(|value| (*value).into()).collect();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&values, None, None).unwrap();
        column.close().unwrap();
    }
    group.close().unwrap();
    writer.into_inner().unwrap()
}

fn written(scratch: &Scratch, format: usize, labels: &[&str]) -> (std::path::PathBuf, Dataset) {
    let text: String = match format {
        0 => {
            "text,label\n".to_owned()
                + &labels.iter().map(|l| format!("a,{l}\n")).collect::<String>()
        }
        1 => {
            "text\tlabel\n".to_owned()
                + &labels.iter().map(|l| format!("a\t{l}\n")).collect::<String>()
        }
        _ => labels.iter().map(|l| format!("{{\"text\": \"a\", \"label\": \"{l}\"}}\n")).collect(),
    };
    let path = match format {
        3 => scratch.write("l.parquet", parquet_of_texts(labels)),
        _ => scratch.write(["l.csv", "l.tsv", "l.jsonl"][format], text),
    };
    let labels = LabelColumns::One { name: "label".into(), separator: None };
    let columns = Columns {
        text: "text".into(),
        text_pair: None,
        labels,
        header: true,
        delimiter: None,
        skip_bad_rows: false,
    };
    let table = data::read(&path, &columns).unwrap();
    (path, table)
}

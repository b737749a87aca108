//! What holds for any input.

use crate::common::Scratch;
use bitfit::config::{RunConfig, TrainingSection};
use bitfit::data::{self, Columns, LabelColumns, Sampler, epoch_order};
use bitfit::freeze::Layers;
use bitfit::optim::{Course, Schedule};
use bitfit::sealed;
use bitfit::train::Policy;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use std::collections::BTreeMap;
use tch::Tensor;

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Each epoch visits each row once, wherever a run is taken up in it, and no step takes more than it may.
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
            per_device_train_batch_size: at_once,
            max_tokens_per_batch: tokens,
            gradient_accumulation_steps: parts,
            num_train_epochs: epoch + 1,
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
        for course in [Course::Constant, Course::Linear, Course::Cosine] {
            let factor = Schedule { course, warmup, total }.factor(step);
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
        let _ = RunConfig::read(&scratch.path("config.toml"), &[format!("{key}={value}")]);
        let path = scratch.write("any.toml", format!("[training]\n{line}\n"));
        let _ = RunConfig::read(&path, &[]);
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
            skip_bad_rows: false,
        };
        if let Ok(table) = data::read(&path, &columns) {
            prop_assert!(table.rows.iter().all(|row| row.labels().len() == 1));
        }
    }
}

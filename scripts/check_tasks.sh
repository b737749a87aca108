#!/usr/bin/env bash
# Checks that 64 tasks in random mixed batches predict 200 texts as each task predicts alone, with
# every score within 1e-5 (of the largest, for a regression): on a small random BERT, DistilBERT and
# RoBERTa, and on all-MiniLM-L6-v2. Takes some minutes. scripts/test.sh runs a small form of it.
#
#   scripts/check_tasks.sh
# shellcheck source=scripts/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
cd -- "$root"
case ${1:-} in -h | --help) usage "${BASH_SOURCE[0]}"; exit ;; esac
set_up
export OMP_WAIT_POLICY=passive
cargo test --release --locked --test tests -- --ignored --exact \
    tasks::sixty_four_tasks_predict_two_hundred_texts_as_each_alone

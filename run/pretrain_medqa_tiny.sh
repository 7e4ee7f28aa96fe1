#!/usr/bin/env bash
# Makes medqa-tiny, the base model that comes with the package, from nothing: text, tokenizer, MindRecord, weights.
#
#   bash run/pretrain_medqa_tiny.sh BUILD_DIR [ALPACA_RECORDS.json …] [key=value…]
#
# ALPACA_RECORDS are further medical records (JSON Lines with instruction, input, output); the shipped weights used
# Huatuo-Llama-Med-Chinese's llama_data.json. The same inputs give the same text, tokenizer and order of samples.
# The result is BUILD_DIR/run/model.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

[ $# -ge 1 ] || fail "usage: bash run/pretrain_medqa_tiny.sh BUILD_DIR [ALPACA_RECORDS.json …] [key=value…]"
use_project_python
build="$1"
shift
extra=() overrides=()
for argument in "$@"; do
  case "$argument" in
    *=*) overrides+=("$argument") ;;
    *) extra+=(--extra "$argument") ;;
  esac
done
mkdir -p "$build"
start="$build/start"
"$PYTHON" -m ms_medqa.data.corpus pretrain --output "$build/pretrain.jsonl" ${extra[@]+"${extra[@]}"}
"$PYTHON" -m ms_medqa.data.train_tokenizer "$build/pretrain.jsonl" --vocab-size 8000 --output "$start"
cp "$ROOT/configs/medqa_tiny/config.json" "$start/"
"$PYTHON" -m ms_medqa.cli.main convert "$build/pretrain.jsonl" --output "$build/data" --model "$start" \
  --config "$ROOT/configs/medqa_tiny/convert.yaml"
"$PYTHON" -m ms_medqa.cli.main train "$ROOT/configs/pretrain_medqa_tiny.yaml" model.path="$start" \
  data.path="$build/data" output_dir="$build/run" ${overrides[@]+"${overrides[@]}"}

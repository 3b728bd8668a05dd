#!/usr/bin/env bash
# Makes the Python code of the messages from the .proto files beside this script: proto/generate.sh [FOLDER]
#
# Without FOLDER it goes where the program imports it from, and is to be committed; a test compares the two.
# Services are called by their full names over raw bytes, so only messages are generated, no stubs.
set -euo pipefail

proto="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
python="${PYTHON:-$proto/../.venv/bin/python}"
target="${1:-$proto/../src/jadevectordb/gateway/rpc/generated}"
package="jadevectordb.gateway.rpc.generated"

draft="$(mktemp -d)"
trap 'rm -rf "$draft"' EXIT
files=("$proto"/jadevectordb/v1/*.proto)
"$python" -W ignore -m grpc_tools.protoc --proto_path="$proto" --python_out="$draft" --pyi_out="$draft" "${files[@]}"

mkdir -p "$target"
rm -f "$target"/*_pb2.py "$target"/*_pb2.pyi
for made in "$draft"/jadevectordb/v1/*; do
  # Imports name the place the code has here, not the folder of the .proto file
  { echo "# Made by proto/generate.sh: change the .proto file instead."
    echo "# ruff: noqa"
    echo "# fmt: off"
    echo '# mypy: disable-error-code="type-arg"'
    sed "s/^from jadevectordb\.v1 import/from $package import/" "$made"
  } > "$target/$(basename "$made")"
done

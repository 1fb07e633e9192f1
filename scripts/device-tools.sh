#!/usr/bin/env bash
# Install what `make device-test` needs and cannot put into its cache, on Debian or Ubuntu, as root.
# Only what is missing: other distributors' nodejs has npm inside, and their packages do not mix.
set -euo pipefail

packages=()
need() { command -v "$1" >/dev/null || packages+=("$2"); }
need git git
need make make
need g++ g++
need cmake cmake
need chromium chromium
need node nodejs
need npm npm
need javac default-jdk-headless
need mvn maven
need aapt2 aapt
python3 -c 'import ensurepip' 2>/dev/null || packages+=(python3-venv)
[ -f /usr/include/nlohmann/json.hpp ] || packages+=(nlohmann-json3-dev)
if [ ${#packages[@]} -gt 0 ]; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}"
fi

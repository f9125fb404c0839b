#!/usr/bin/env bash
# The cluster of compose.yaml for real: as root on a Debian machine with podman, runc, podman-compose and
# debootstrap. Makes a base image without any registry of images, builds the image of the cluster on it, runs the
# tests marked `compose`, and removes all of it. Arguments go to pytest. PYTHON names the Python with the tests'
# packages; PIP_OPTIONS is for pip in the image. Exit code 77: this machine cannot run containers.
set -euo pipefail
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
name=localhost/paramserver-test-$$
export CONTAINERS_CONF=$work/containers.conf PARAMSERVER_IMAGE=$name COMPOSE_FILE=$PWD/compose.yaml
cleanup() {
  podman image rm --force "$name" "$name-base" >/dev/null 2>&1 || true
  rm -rf "$work"
}
trap cleanup EXIT

# cgroupfs: there may be no systemd. The limits are those of this machine: raising them may not be allowed.
cat >"$CONTAINERS_CONF" <<END
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
[engine]
cgroup_manager = "cgroupfs"
runtime = "runc"
END

echo "== a base image: Debian with Python"
debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates \
  "${DEBIAN_RELEASE:-bookworm}" "$work/base" >"$work/debootstrap.log" 2>&1 ||
  { tail -n 5 "$work/debootstrap.log"; exit 77; }
tar -C "$work/base" -c . | podman import --quiet - "$name-base" >/dev/null
rm -rf "$work/base"
podman run --rm "$name-base" true || exit 77

echo "== the image of the cluster"
# With the network and the certificates of this machine: what reaches packages here does so there.
podman build --quiet --layers=false --network host --volume /etc/ssl/certs:/etc/ssl/certs:ro \
  --build-arg BASE="$name-base" --build-arg PIP_OPTIONS="${PIP_OPTIONS:-}" --tag "$name" . >"$work/build.log" 2>&1 ||
  { tail -n 20 "$work/build.log"; exit 1; }

echo "== the tests"
OPENBLAS_NUM_THREADS=1 "${PYTHON:-python3}" -m pytest -q -m compose tests/compose "$@"

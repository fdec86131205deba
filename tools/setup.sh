#!/usr/bin/env bash
# Installs what a command of the Makefile needs and is not there: npm packages by the lock file,
# Debian packages when root. Called with `build`, `run` or `test`. Silent when there is nothing to
# do; without root it says in one line what to install, and ends with status 3.
set -euo pipefail
cd "$(dirname "$0")/.."

# Debian leaves these out of an ordinary user's path, and some programs are only there.
PATH=$PATH:/usr/sbin:/sbin

readonly goal=${1:?usage: tools/setup.sh build|run|test}
readonly qemu_wanted=8.2

fail() {
  echo "setup: $*" >&2
  exit 3
}

node_is_new_enough() {
  command -v node >/dev/null && [ "$(node -p 'parseInt(process.versions.node)')" -ge 20 ]
}

# Programs (and a header: gcc comes without the C library's) and the Debian packages that have them,
# for each goal.
programs() {
  echo 'gcc gcc' '/usr/include/stdio.h libc6-dev' 'ld binutils' 'strip binutils'
  [ "$goal" = build ] && return
  echo 'qemu-system-x86_64 qemu-system-x86'
  [ "$goal" = run ] && return
  echo 'ip iproute2' 'ping iputils-ping' 'arping iputils-arping' 'tcpdump tcpdump'
  echo 'nc netcat-openbsd' 'taskset util-linux' 'dpdk-testpmd dpdk-dev' 'clang-format clang-format'
  echo 'radvd radvd'
  echo 'ethtool ethtool' 'python3 python3' 'iperf3 iperf3' 'socat socat'
  echo 'ovs-vswitchd openvswitch-switch' 'libvirtd libvirt-daemon-system' 'virsh libvirt-clients'
  echo '/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk openvswitch-switch-dpdk'
}

# The host lab's kernel is downloaded by apt, which must know where (test/harness/src/lab/image.ts).
know_packages() {
  [ "$goal" = test ] && [ "$(id -u)" -eq 0 ] && [ ! -e /dev/vhost-net ] || return 0
  [ -e build/lab/packages ] || apt-cache show linux-image-amd64 >/dev/null 2>&1 || apt-get update -qq
}

missing_packages() {
  programs | xargs -n 2 | while read -r program package; do
    command -v "$program" >/dev/null || [ -e "$program" ] || echo "$package"
  done | sort -u
}

qemu_is_new_enough() {
  local have
  have=$(qemu-system-x86_64 --version | sed -n '1s/.*version \([0-9.]*\).*/\1/p')
  [ "$(printf '%s\n' "$qemu_wanted" "$have" | sort -V | head -n 1)" = "$qemu_wanted" ]
}

# The archive that this machine already uses for its release, so that no address is written here.
add_backports() {
  local site
  site=$(apt-get indextargets --format '$(REPO_URI)' 'Codename: bookworm' | head -n 1)
  [ -n "$site" ] || fail 'QEMU 8.2 or newer is needed and this is no Debian 12: install it by hand'
  echo "setup: adding bookworm-backports for QEMU $qemu_wanted or newer"
  echo "deb $site bookworm-backports main" >/etc/apt/sources.list.d/vireo-backports.list
  apt-get update -qq
}

# First what Debian has, then QEMU anew from backports: so only what QEMU needs comes from there.
# The other way round its libraries do too, and dpdk-dev wants Debian's own.
install_packages() {
  local packages
  packages=$(missing_packages | xargs)
  if [ -n "${packages// /}" ]; then
    be_root "$packages"
    echo "setup: installing $packages"
    apt-get update -qq
    # shellcheck disable=SC2086 # one word a package
    apt-get install -qq -y --no-install-recommends $packages >/dev/null
  fi
  [ "$goal" = build ] || qemu_is_new_enough || upgrade_qemu
}

be_root() {
  [ "$(id -u)" -eq 0 ] || fail "install these first: apt-get install $1" \
    "(QEMU $qemu_wanted or newer, in Debian 12 from bookworm-backports)"
  export DEBIAN_FRONTEND=noninteractive
}

upgrade_qemu() {
  be_root qemu-system-x86
  apt-cache policy qemu-system-x86 | grep -q bookworm-backports || add_backports
  apt-get install -qq -y --no-install-recommends -t bookworm-backports qemu-system-x86 >/dev/null
}

install_modules() {
  [ node_modules/.package-lock.json -nt package-lock.json ] && return
  echo 'setup: installing npm packages (npm ci)'
  npm ci --no-audit --no-fund --no-update-notifier --loglevel=error
  touch node_modules/.package-lock.json
}

node_is_new_enough || fail 'Node.js 20 or newer is needed; install it from nodejs.org or your distribution'
install_packages
know_packages
install_modules

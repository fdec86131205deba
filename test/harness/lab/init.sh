#!/bin/busybox sh
# The first process of the lab, out of its initramfs: loads the modules, puts a writable layer over
# the host's files, mounts the project's build directory to be shared in both directions, and goes
# on with second.sh. LAB_* come from the kernel's command line (src/lab/lab.ts writes it).
set -e
/bin/busybox mkdir -p /proc /sys /dev /lower /layer /lab
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev

stop() {
  echo "lab: $*" >/dev/ttyS0
  echo o >/proc/sysrq-trigger
  sleep 60
}
while read -r module; do
  insmod "/modules/$module.ko" || stop "module $module cannot be loaded"
done </modules/order

readonly share=trans=virtio,version=9p2000.L,msize=524288
mount -t tmpfs -o size=80% tmpfs /layer
mkdir /layer/upper /layer/work
# The host's files do not change under a running lab, except those below the build directory.
mount -t 9p -o "$share,ro,cache=loose" host /lower || stop 'the host root cannot be mounted'
mount -t overlay -o lowerdir=/lower,upperdir=/layer/upper,workdir=/layer/work overlay /lab ||
  stop 'the overlay cannot be mounted'
for directory in proc sys dev; do mount -o move "/$directory" "/lab/$directory"; done
exec switch_root /lab /bin/sh "$LAB_HARNESS/lab/second.sh"
stop 'switch_root has failed'

#!/bin/sh
# Starts a libvirtd that shares nothing with one of the machine: run in new mount and process
# namespaces (src/libvirt/host.ts), it hides the machine's own settings and state. Arguments: a
# directory with libvirtd.conf and qemu.conf, and one that keeps what libvirt finds out about QEMU.
set -e
for directory in /run/libvirt /var/lib/libvirt /var/cache/libvirt /var/log/libvirt; do
  mkdir -p "$directory"
  mount -t tmpfs tmpfs "$directory"
done
mount --bind "$2" /var/cache/libvirt
mount -t tmpfs tmpfs /etc/libvirt
cp "$1/qemu.conf" "$1/libvirtd.conf" /etc/libvirt/
# Not by exec: the first process of a namespace inherits the orphans, and libvirtd, which waits
# until a QEMU that it has probed is gone, would never see them go.
libvirtd --config "$1/libvirtd.conf" --pid-file "$1/pid"
exit $?

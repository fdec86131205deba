#!/bin/busybox sh
# The first process of the Linux guest that the benchmark compares with (tools/bench-linux.ts). What
# it does comes from the kernel's command line: bench=pktgen size=N | gso size=N mss=N | receive |
# echo, or with DPDK's testpmd in place of the kernel's driver txonly txpkts=N,... | rxonly | io.
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for word in $(cat /proc/cmdline); do
  case $word in
    bench=*) bench=${word#bench=} ;;
    size=*) size=${word#size=} ;;
    mss=*) mss=${word#mss=} ;;
    txpkts=*) txpkts=${word#txpkts=} ;;
  esac
done
load() { while read -r module; do insmod "/modules/$module"; done <"/modules/$1"; }

run_testpmd() {
  load order-dpdk
  # A device in PCI Express's root complex is transitional, elsewhere it is modern.
  for id in 1000 1041; do echo "1af4 $id" >/sys/bus/pci/drivers/uio_pci_generic/new_id; done
  mkdir -p /dev/hugepages /var/run
  # DPDK loads no plugins from below a folder that anybody may write to.
  chmod 755 /
  mount -t hugetlbfs none /dev/hugepages
  echo "ready $bench"
  # It ends with its standard input.
  sleep 1000000 | "$(find /usr -name dpdk-testpmd)" --lcores 0@0,1@0 -m 128 --no-telemetry \
    $(cat /modules/plugins) -- --auto-start --forward-mode="$bench" --burst=64 \
    --total-num-mbufs=4096 "$@"
}
case $bench in
  # Frames of several segments are an offload to DPDK.
  txonly)
    case $txpkts in *,*) offloads=--tx-offloads=0x8000 ;; esac
    run_testpmd --txpkts="$txpkts" $offloads --eth-peer=0,02:00:00:00:00:01
    ;;
  rxonly | io) run_testpmd ;;
esac
load order
ip link set lo up
ip address add 192.0.2.2/24 dev eth0
ip link set eth0 up
echo "ready $bench"
case $bench in
  pktgen)
    echo add_device eth0 >/proc/net/pktgen/kpktgend_0
    for line in "count 0" "clone_skb 1000" "burst 64" "pkt_size $size" "delay 0" \
      "dst 192.0.2.1" "dst_mac 02:00:00:00:00:01"; do
      echo "$line" >/proc/net/pktgen/eth0
    done
    echo start >/proc/net/pktgen/pgctrl
    ;;
  gso) gso-source eth0 "$size" "$mss" ;;
  echo) udp-echo 7 ;;
esac
# Frames that nobody wants are counted and dropped by the kernel.
while :; do sleep 1000; done

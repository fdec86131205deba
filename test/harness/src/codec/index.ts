// The packet codec as one import.

export * from "./address";
export * from "./address6";
export * from "./arp";
export * from "./checksum";
export * from "./dhcp";
export * from "./ethernet";
export * from "./icmp";
export * from "./icmpv6";
export * from "./ipv4";
export * from "./ipv6";
export * from "./nd";
export * from "./packets";
export * from "./packets6";
export * from "./tcp";
export * from "./udp";

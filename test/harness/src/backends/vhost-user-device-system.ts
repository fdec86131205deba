// The system calls that a vhost-user back end needs and Node does not have: file descriptors over a
// Unix socket (SCM_RIGHTS), shared mappings, eventfds, and waiting on all of them. By koffi, which is
// loaded when the first device starts, so that no other test depends on it. Used by
// vhost-user-device*.ts only.
//
// No call blocks: every descriptor is non-blocking, and `poll` waits in a thread of libuv's pool.

import type * as Koffi from "koffi";
import { EnvironmentError, HarnessError, messageOf } from "../errors";

const AF_UNIX = 1;
const SOCK_STREAM = 1;
const SOCK_NONBLOCK = 0o4000;
const SOCK_CLOEXEC = 0o2000000;
const EFD_NONBLOCK = SOCK_NONBLOCK;
const EFD_CLOEXEC = SOCK_CLOEXEC;
const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const MSG_CMSG_CLOEXEC = 0x40000000;
const MSG_CTRUNC = 0x8;
const PROT_READ_WRITE = 3;
const MAP_SHARED = 1;
const MAP_FAILED = 0xffff_ffff_ffff_ffffn;
export const POLLIN = 1;

/** struct sockaddr_un: family 2 | path 108. */
const SUN_PATH_BYTES = 108;
/** struct msghdr: name 8 | namelen 4, - 4 | iov 8 | iovlen 8 | control 8 | controllen 8 | flags 4. */
const MSGHDR_BYTES = 56;
/** struct cmsghdr: len 8 | level 4 | type 4, then the descriptors, 4 bytes each. */
const CMSGHDR_BYTES = 16;
const FDS_MAX = 16;
const CONTROL_BYTES = CMSGHDR_BYTES + 4 * FDS_MAX;
/** struct pollfd: fd 4 | events 2 | revents 2. */
const POLLFD_BYTES = 8;
/** More than a connection, its listener, a wake-up and 64 queues. */
const POLLFDS_MAX = 128;

type Callback = (error: Error | null, result: number) => void;

/** The functions of the C library, as koffi calls them. Pointers are buffers or addresses. */
interface Library {
  readonly socket: (family: number, type: number, protocol: number) => number;
  readonly bind: (fd: number, address: Buffer, bytes: number) => number;
  readonly listen: (fd: number, backlog: number) => number;
  readonly accept4: (fd: number, address: null, bytes: null, flags: number) => number;
  readonly recvmsg: (fd: number, message: Buffer, flags: number) => number;
  readonly send: (fd: number, data: Uint8Array, bytes: number, flags: number) => number;
  readonly read: (fd: number, data: Uint8Array, bytes: number) => number;
  readonly write: (fd: number, data: Uint8Array, bytes: number) => number;
  readonly close: (fd: number) => number;
  readonly eventfd: (value: number, flags: number) => number;
  readonly mmap: (
    at: null,
    bytes: number,
    protection: number,
    flags: number,
    fd: number,
    offset: number,
  ) => bigint;
  readonly munmap: (at: bigint, bytes: number) => number;
  readonly poll: {
    readonly async: (fds: Buffer, count: number, timeoutMs: number, done: Callback) => void;
  };
}

const PROTOTYPES = {
  socket: "int socket(int, int, int)",
  bind: "int bind(int, const void *, uint32_t)",
  listen: "int listen(int, int)",
  accept4: "int accept4(int, void *, void *, int)",
  recvmsg: "int64_t recvmsg(int, void *, int)",
  send: "int64_t send(int, const void *, size_t, int)",
  read: "int64_t read(int, void *, size_t)",
  write: "int64_t write(int, const void *, size_t)",
  close: "int close(int)",
  eventfd: "int eventfd(unsigned int, int)",
  mmap: "void *mmap(void *, size_t, int, int, int, int64_t)",
  munmap: "int munmap(void *, size_t)",
  poll: "int poll(void *, uint64_t, int)",
} as const;

/** What `receive` found: bytes and descriptors; no bytes: the other side has closed. */
export interface Received {
  readonly bytes: number;
  readonly fds: readonly number[];
}

export interface Mapping {
  readonly buffer: ArrayBuffer;
  readonly address: bigint;
  readonly bytes: number;
}

export class System {
  private readonly library: Library;
  private readonly message = offHeap(MSGHDR_BYTES);
  private readonly vector = offHeap(16);
  private readonly control = offHeap(CONTROL_BYTES);
  private readonly counter = offHeap(8);

  constructor(private readonly koffi: typeof Koffi) {
    const library = koffi.load(null);
    const entries = Object.entries(PROTOTYPES).map(([name, text]) => [name, library.func(text)]);
    this.library = Object.fromEntries(entries) as Library;
    this.message.writeBigUInt64LE(koffi.address(this.vector), 16);
    this.message.writeBigUInt64LE(1n, 24);
    this.message.writeBigUInt64LE(koffi.address(this.control), 32);
  }

  private get errorName(): string {
    const { errno } = this.koffi.os;
    const number = this.koffi.errno();
    return Object.keys(errno).find((name) => errno[name] === number) ?? `errno ${number}`;
  }

  /** A call's result, which must not be negative. */
  private checked(result: number, what: string): number {
    if (result < 0) throw new HarnessError(`vhost-user device: ${what}: ${this.errorName}`);
    return result;
  }

  private get wouldBlock(): boolean {
    const name = this.errorName;
    return name === "EAGAIN" || name === "EWOULDBLOCK" || name === "EINTR";
  }

  /** A listening Unix socket at `path`. */
  listen(path: string): number {
    const name = Buffer.from(path);
    if (name.length >= SUN_PATH_BYTES) throw new HarnessError(`socket path too long: ${path}`);
    const type = SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC;
    const fd = this.checked(this.library.socket(AF_UNIX, type, 0), "socket");
    const address = offHeap(2 + SUN_PATH_BYTES);
    address.writeUInt16LE(AF_UNIX);
    name.copy(address, 2);
    try {
      this.checked(this.library.bind(fd, address, address.length), `bind ${path}`);
      this.checked(this.library.listen(fd, 1), `listen ${path}`);
    } catch (error) {
      this.close(fd);
      throw error;
    }
    return fd;
  }

  /** The next connection, or undefined when none waits. */
  accept(fd: number): number | undefined {
    const found = this.library.accept4(fd, null, null, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (found < 0 && this.wouldBlock) return undefined;
    return this.checked(found, "accept4");
  }

  /** Reads into `data` what is there, with the descriptors that came with its first byte. */
  receive(fd: number, data: Buffer): Received | undefined {
    this.vector.writeBigUInt64LE(this.koffi.address(data));
    this.vector.writeBigUInt64LE(BigInt(data.length), 8);
    this.message.writeBigUInt64LE(BigInt(CONTROL_BYTES), 40);
    this.message.writeInt32LE(0, 48);
    const bytes = this.library.recvmsg(fd, this.message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (bytes < 0) {
      if (this.wouldBlock) return undefined;
      if (this.errorName === "ECONNRESET") return { bytes: 0, fds: [] };
      this.checked(bytes, "recvmsg");
    }
    const fds = this.descriptors();
    if ((this.message.readInt32LE(48) & MSG_CTRUNC) !== 0) {
      for (const one of fds) this.close(one);
      throw new HarnessError(`vhost-user device: more than ${FDS_MAX} descriptors in a message`);
    }
    return { bytes, fds };
  }

  private descriptors(): number[] {
    const bytes = Number(this.message.readBigUInt64LE(40));
    if (bytes < CMSGHDR_BYTES) return [];
    const length = Number(this.control.readBigUInt64LE());
    const [level, type] = [this.control.readInt32LE(8), this.control.readInt32LE(12)];
    if (level !== SOL_SOCKET || type !== SCM_RIGHTS) return [];
    const count = (length - CMSGHDR_BYTES) / 4;
    return Array.from({ length: count }, (_, i) => this.control.readInt32LE(CMSGHDR_BYTES + 4 * i));
  }

  /** Writes all of `data`, which is short; false when the other side has gone. */
  send(fd: number, data: Uint8Array): boolean {
    const sent = this.library.send(fd, data, data.length, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent === data.length) return true;
    if (sent < 0 && ["EPIPE", "ECONNRESET"].includes(this.errorName)) return false;
    throw new HarnessError(`vhost-user device: ${sent} of ${data.length} bytes sent`);
  }

  close(fd: number): void {
    this.checked(this.library.close(fd), `close ${fd}`);
  }

  eventfd(): number {
    return this.checked(this.library.eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), "eventfd");
  }

  /** Adds 1 to an eventfd. */
  signal(fd: number): void {
    this.counter.writeBigUInt64LE(1n);
    const written = this.library.write(fd, this.counter, 8);
    // A counter that is full has been signalled more than enough.
    if (written < 0 && this.wouldBlock) return;
    this.checked(written, `write to eventfd ${fd}`);
  }

  /** Takes what an eventfd has counted; 0: nothing. */
  drain(fd: number): number {
    const read = this.library.read(fd, this.counter, 8);
    if (read < 0 && this.wouldBlock) return 0;
    this.checked(read, `read of eventfd ${fd}`);
    return Number(this.counter.readBigUInt64LE());
  }

  /** Maps `bytes` of a descriptor from `offset` on, for reading and writing. */
  map(fd: number, offset: number, bytes: number): Mapping {
    const address = this.library.mmap(null, bytes, PROT_READ_WRITE, MAP_SHARED, fd, offset);
    if (address === MAP_FAILED) this.checked(-1, `mmap of ${bytes} bytes from ${offset}`);
    return { address, bytes, buffer: this.koffi.view(address, bytes) };
  }

  /** Whoever still has the mapping's buffer must not touch it any more. */
  unmap({ address, bytes }: Mapping): void {
    this.checked(this.library.munmap(address, bytes), "munmap");
  }

  /** Waits until one of `fds` is readable, at most `timeoutMs`; answers those that are. */
  poll(fds: readonly number[], timeoutMs: number): Promise<number[]> {
    if (fds.length > POLLFDS_MAX) throw new HarnessError(`poll: ${fds.length} descriptors`);
    const list = offHeap(POLLFD_BYTES * fds.length);
    for (const [i, fd] of fds.entries()) {
      list.writeInt32LE(fd, POLLFD_BYTES * i);
      list.writeInt16LE(POLLIN, POLLFD_BYTES * i + 4);
    }
    return new Promise((resolve, reject) => {
      this.library.poll.async(list, fds.length, timeoutMs, (error) => {
        // A signal ends the wait early: then nothing is readable, and the caller waits again.
        if (error === null) {
          resolve(fds.filter((_, i) => list.readInt16LE(POLLFD_BYTES * i + 6) !== 0));
        } else reject(error);
      });
    });
  }
}

/** Memory that stays where it is, for addresses in structures. */
function offHeap(bytes: number): Buffer {
  return Buffer.from(new ArrayBuffer(bytes));
}

let loaded: System | undefined;

/** Loads koffi once. Throws EnvironmentError where it does not run. */
export async function loadSystem(): Promise<System> {
  if (loaded !== undefined) return loaded;
  try {
    loaded = new System(await import("koffi"));
  } catch (error) {
    throw new EnvironmentError(`koffi does not load (npm ci): ${messageOf(error)}`);
  }
  return loaded;
}

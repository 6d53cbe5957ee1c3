package zcbroker.client;

import java.io.IOException;
import java.net.ConnectException;
import java.net.SocketTimeoutException;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.channels.SocketChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.InvalidPathException;
import java.nio.file.LinkOption;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.stream.Stream;
import jdk.net.ExtendedSocketOptions;

/** Connecting to Unix sockets, and who is at their other end. */
final class Sockets {
  private static final int MAX_PATH_BYTES = 107;
  private static final long LONGEST_PAUSE_MILLIS = 10;
  // EAGAIN, which Java 17 has no exception of its own for.
  private static final String QUEUE_IS_FULL = "Resource temporarily unavailable";

  private Sockets() {}

  /** An absolute path that fits a Unix socket's address, and has all its characters in this locale. */
  static boolean isEndpoint(String path) {
    try {
      return Path.of(path).isAbsolute() && path.getBytes(StandardCharsets.UTF_8).length <= MAX_PATH_BYTES;
    } catch (InvalidPathException unusable) {
      return false;
    }
  }

  /**
   * Tries once, and while the listener's queue is full again until {@code deadline}; the channel is in blocking mode.
   * Throws NoSuchFileException, ConnectException (nobody listens), SocketTimeoutException and others.
   */
  static SocketChannel dial(Path path, Deadline deadline) throws IOException {
    for (long pause = 1;; pause = Math.min(2 * pause, LONGEST_PAUSE_MILLIS)) {
      SocketChannel channel = SocketChannel.open(StandardProtocolFamily.UNIX);
      try {
        channel.configureBlocking(false);
        if (channel.connect(UnixDomainSocketAddress.of(path))) {
          channel.configureBlocking(true);
          return channel;
        }
      } catch (IOException failed) {
        if (!QUEUE_IS_FULL.equals(failed.getMessage())) {
          closeQuietly(channel);
          throw named(failed, path);
        }
      }
      // Its queue is full; this channel would take itself for connected.
      closeQuietly(channel);
      if (deadline.remaining().isZero()) {
        throw new SocketTimeoutException("connect " + path + ": its queue stays full");
      }
      try {
        Thread.sleep(Math.min(pause, deadline.remaining().toMillis() + 1));
      } catch (InterruptedException interrupted) {
        Thread.currentThread().interrupt();
        throw new SocketTimeoutException("connect " + path + ": interrupted");
      }
    }
  }

  private static IOException named(IOException failed, Path path) {
    boolean gone = !(failed instanceof ConnectException) && Files.notExists(path, LinkOption.NOFOLLOW_LINKS);
    return gone ? new NoSuchFileException(path.toString()) : failed;
  }

  /** Whether the other end is this user's. */
  static boolean isOurs(SocketChannel channel) throws IOException {
    return channel.getOption(ExtendedSocketOptions.SO_PEERCRED).user().equals(PrivateDir.ownUser());
  }

  /**
   * Whether the process {@code pid} listens at {@code path}. Java's SO_PEERCRED does not tell the pid, so /proc does;
   * true where it does not know either: for pid 0, or a socket that was bound by another name.
   */
  static boolean mayListen(int pid, Path path) throws IOException {
    Set<String> listeners = listenersAt(path);
    if (pid == 0 || listeners.isEmpty()) {
      return true;
    }
    try (Stream<Path> descriptors = Files.list(Path.of("/proc", Integer.toUnsignedString(pid), "fd"))) {
      return descriptors.anyMatch(descriptor -> listeners.contains(target(descriptor)));
    } catch (NoSuchFileException gone) {
      return false;
    }
  }

  /** As the links in /proc/PID/fd spell them. */
  private static Set<String> listenersAt(Path path) throws IOException {
    // Num RefCount Protocol Flags Type St Inode Path; the flag is __SO_ACCEPTCON.
    List<String> lines = Files.readAllLines(Path.of("/proc/net/unix"), StandardCharsets.ISO_8859_1);
    String bound = new String(path.toString().getBytes(StandardCharsets.UTF_8), StandardCharsets.ISO_8859_1);
    Set<String> result = new HashSet<>();
    for (String line : lines) {
      String[] fields = line.trim().split(" +", 8);
      if (fields.length == 8 && fields[3].equals("00010000") && fields[7].equals(bound)) {
        result.add("socket:[" + fields[6] + "]");
      }
    }
    return result;
  }

  private static String target(Path link) {
    try {
      return Files.readSymbolicLink(link).toString();
    } catch (IOException closedMeanwhile) {
      return "";
    }
  }

  static void closeQuietly(SocketChannel channel) {
    try {
      channel.close();
    } catch (IOException nothingToMend) {
      // It is gone in any case.
    }
  }
}

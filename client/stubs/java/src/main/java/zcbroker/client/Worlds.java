package zcbroker.client;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import zcbroker.v1.RouteInfo;
import zcbroker.v1.World;

/** What daemons must have in common with this process to serve it. */
final class Worlds {
  private static final int MAX_NAMESPACE = 32;

  private Worlds() {}

  static World own() {
    return World.newBuilder()
        .setCacheRoot(cacheRoot().toAbsolutePath().normalize().toString())
        .setDaemonNamespace(daemonNamespace())
        .setMountNamespace(mountNamespace())
        .build();
  }

  /** Names the routes of a world in {@code worlds/} of the runtime directory. */
  static String id(World world) {
    return String.format("%016x", fnv64(world.getCacheRoot() + "\0" + world.getDaemonNamespace()));
  }

  /** A field that either side leaves empty is not compared. */
  static boolean fits(RouteInfo info, World world) {
    return same(info.getMountNamespace(), world.getMountNamespace())
        && same(info.getCacheRoot(), world.getCacheRoot())
        && same(info.getDaemonNamespace(), world.getDaemonNamespace());
  }

  private static boolean same(String theirs, String ours) {
    return theirs.isEmpty() || ours.isEmpty() || theirs.equals(ours);
  }

  private static String variable(String name) {
    String value = System.getenv(name);
    return value == null ? "" : value;
  }

  private static Path cacheRoot() {
    String root = variable("ZCCACHE_CACHE_DIR");
    return root.isEmpty() ? Path.of(variable("HOME"), ".zccache") : Path.of(root);
  }

  private static String mountNamespace() {
    try {
      return Files.readSymbolicLink(Path.of("/proc/self/ns/mnt")).toString();
    } catch (IOException notCompared) {
      return "";
    }
  }

  private static String daemonNamespace() {
    String trimmed = variable("ZCCACHE_DAEMON_NAMESPACE").replaceAll("^\\s+|\\s+$", "");
    String safe = trimmed.replaceAll("[^A-Za-z0-9._-]", "_");
    if (safe.isEmpty()) {
      return "default";
    }
    if (safe.length() <= MAX_NAMESPACE) {
      return safe;
    }
    long hash = fnv64(trimmed);
    return String.format("%s-%08x", safe.substring(0, MAX_NAMESPACE), (int) (hash ^ (hash >>> 32)));
  }

  /** FNV-1a. */
  private static long fnv64(String text) {
    long hash = 0xcbf29ce484222325L;
    for (byte b : text.getBytes(StandardCharsets.UTF_8)) {
      hash = (hash ^ (b & 0xff)) * 0x100000001b3L;
    }
    return hash;
  }
}

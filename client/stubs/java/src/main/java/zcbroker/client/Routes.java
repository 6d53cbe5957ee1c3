package zcbroker.client;

import com.google.protobuf.InvalidProtocolBufferException;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.regex.Pattern;
import org.apache.commons.codec.binary.Hex;
import org.apache.commons.codec.digest.Blake3;
import zcbroker.v1.RouteInfo;

/** The files that the broker keeps for each version of a service. */
final class Routes {
  private static final int MAX_INFO_BYTES = 64 * 1024;
  private static final int MAX_STEM_BYTES = 40;
  private static final int MAX_VERSION_BYTES = 64;
  private static final int STEM_HASH_BYTES = 8;
  private static final Pattern SERVICE = Pattern.compile("[a-z0-9-]{1,64}");
  private static final Pattern VERSION = Pattern.compile("[0-9]+\\.[0-9]+\\.[0-9]+(-[a-z0-9.]+)?");

  private Routes() {}

  static NamedRoute named(Path runtimeDir, String service, String version) {
    checkNames(service, version);
    Path dir = runtimeDir.resolve("routes").resolve(service);
    String stem = stem(version);
    return new NamedRoute(dir.resolve(stem + ".sock"), dir.resolve(stem + ".info"));
  }

  static RouteInfo decode(byte[] bytes) throws InvalidProtocolBufferException {
    RouteInfo info = RouteInfo.parseFrom(bytes);
    if (!Sockets.isEndpoint(info.getEndpoint())) {
      throw new InvalidProtocolBufferException("\"" + info.getEndpoint() + "\" is no absolute socket path");
    }
    return info;
  }

  /** The route info of {@code service} at {@code version}, checked to be of both. */
  static RouteInfo read(PrivateDir dir, String service, String version) throws IOException {
    checkNames(service, version);
    try (PrivateDir routes = dir.openChild("routes"); PrivateDir ofService = routes.openChild(service)) {
      String leaf = stem(version) + ".info";
      RouteInfo info = decode(ofService.read(leaf, MAX_INFO_BYTES));
      if (!info.getService().equals(service) || !info.getVersion().equals(version)) {
        throw new IOException(leaf + " is of another service or version");
      }
      return info;
    }
  }

  static boolean areNames(String service, String version) {
    return SERVICE.matcher(service).matches() && VERSION.matcher(version).matches()
        && version.length() <= MAX_VERSION_BYTES;
  }

  private static void checkNames(String service, String version) {
    if (!areNames(service, version)) {
      throw new IllegalArgumentException("\"" + service + "\" \"" + version + "\" names no version of a service");
    }
  }

  /** A version over 40 bytes stands as the first 8 bytes of its BLAKE3. */
  private static String stem(String version) {
    if (version.length() <= MAX_STEM_BYTES) {
      return version;
    }
    byte[] hash = new byte[STEM_HASH_BYTES];
    Blake3.initHash().update(version.getBytes(StandardCharsets.US_ASCII)).doFinalize(hash);
    return Hex.encodeHexString(hash);
  }
}

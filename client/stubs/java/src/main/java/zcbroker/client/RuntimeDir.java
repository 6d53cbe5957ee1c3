package zcbroker.client;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.InvalidPathException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;

/** The rule for the directory of the broker's socket and route infos; see {@link Zcbroker#runtimeDir}. */
final class RuntimeDir {
  private RuntimeDir() {}

  static PrivateDir open() throws IOException {
    try (PrivateDir base = base()) {
      return base.openChild("zcbroker");
    }
  }

  private static PrivateDir base() throws IOException {
    int uid = (Integer) Files.getAttribute(Path.of("/proc/self"), "unix:uid");
    List<String> better = new ArrayList<>();
    String xdg = System.getenv("XDG_RUNTIME_DIR");
    if (xdg != null && xdg.startsWith("/")) {
      better.add(xdg);
    }
    better.add("/run/user/" + Integer.toUnsignedString(uid));
    for (String path : better) {
      try {
        return PrivateDir.open(Path.of(path));
      } catch (IOException | InvalidPathException passedOver) {
        // The next one decides.
      }
    }
    return PrivateDir.open(Path.of("/tmp/zcbroker-" + Integer.toUnsignedString(uid)));
  }
}

package zcbroker.client;

import java.io.Closeable;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.SeekableByteChannel;
import java.nio.file.FileSystemException;
import java.nio.file.Files;
import java.nio.file.LinkOption;
import java.nio.file.Path;
import java.nio.file.SecureDirectoryStream;
import java.nio.file.StandardOpenOption;
import java.nio.file.attribute.PosixFileAttributeView;
import java.nio.file.attribute.PosixFileAttributes;
import java.nio.file.attribute.PosixFilePermission;
import java.nio.file.attribute.PosixFilePermissions;
import java.nio.file.attribute.UserPrincipal;
import java.util.Set;

/**
 * An open directory that is ours alone. What is below it is opened relative to it, so what was checked is what is used.
 */
final class PrivateDir implements Closeable {
  private static final Set<PosixFilePermission> OURS_ALONE = PosixFilePermissions.fromString("rwx------");

  private final Path path;
  private final SecureDirectoryStream<Path> stream;

  private PrivateDir(Path path, SecureDirectoryStream<Path> stream) {
    this.path = path;
    this.stream = stream;
  }

  static PrivateDir open(Path path) throws IOException {
    PosixFileAttributes before =
        check(path, Files.readAttributes(path, PosixFileAttributes.class, LinkOption.NOFOLLOW_LINKS));
    SecureDirectoryStream<Path> stream = (SecureDirectoryStream<Path>) Files.newDirectoryStream(path);
    PosixFileAttributes opened = stream.getFileAttributeView(PosixFileAttributeView.class).readAttributes();
    if (!opened.fileKey().equals(before.fileKey())) {
      stream.close();
      throw new FileSystemException(path.toString(), null, "was replaced meanwhile");
    }
    return new PrivateDir(path, stream);
  }

  PrivateDir openChild(String leaf) throws IOException {
    Path child = path.resolve(leaf);
    SecureDirectoryStream<Path> opened = stream.newDirectoryStream(Path.of(leaf), LinkOption.NOFOLLOW_LINKS);
    try {
      check(child, opened.getFileAttributeView(PosixFileAttributeView.class).readAttributes());
    } catch (IOException refused) {
      opened.close();
      throw refused;
    }
    return new PrivateDir(child, opened);
  }

  /** Reads a regular file that only its user may write, of at most {@code limit} bytes. */
  byte[] read(String leaf, int limit) throws IOException {
    Path file = Path.of(leaf);
    // Before it is opened: a FIFO would hold us up.
    PosixFileAttributes attributes =
        stream.getFileAttributeView(file, PosixFileAttributeView.class, LinkOption.NOFOLLOW_LINKS).readAttributes();
    if (!attributes.isRegularFile() || !attributes.owner().equals(ownUser())
        || attributes.permissions().contains(PosixFilePermission.GROUP_WRITE)
        || attributes.permissions().contains(PosixFilePermission.OTHERS_WRITE)) {
      throw new FileSystemException(path.resolve(leaf).toString(), null, "must be a file that only you may write");
    }
    ByteBuffer bytes = ByteBuffer.allocate(limit + 1);
    try (SeekableByteChannel content =
        stream.newByteChannel(file, Set.of(StandardOpenOption.READ, LinkOption.NOFOLLOW_LINKS))) {
      while (bytes.hasRemaining() && content.read(bytes) >= 0) {}
    }
    if (!bytes.hasRemaining()) {
      throw new FileSystemException(path.resolve(leaf).toString(), null, "is too long");
    }
    byte[] result = new byte[bytes.position()];
    bytes.flip().get(result);
    return result;
  }

  Path path() {
    return path;
  }

  @Override
  public void close() throws IOException {
    stream.close();
  }

  /** The effective user, who owns all that is ours. */
  static UserPrincipal ownUser() throws IOException {
    return Files.getOwner(Path.of("/proc/self"));
  }

  private static PosixFileAttributes check(Path path, PosixFileAttributes attributes) throws IOException {
    if (!attributes.isDirectory() || !attributes.owner().equals(ownUser())
        || !attributes.permissions().equals(OURS_ALONE)) {
      throw new FileSystemException(path.toString(), null, "must be your own directory of mode 0700");
    }
    return attributes;
  }
}

package zcbroker.client;

import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.Socket;
import java.net.SocketAddress;
import java.nio.ByteBuffer;
import java.nio.channels.SocketChannel;
import java.util.concurrent.CompletableFuture;

/**
 * A connected Unix socket as gRPC's OkHttp transport wants it. The streams of java.nio.channels.Channels would not do:
 * before Java 19 a read that waits keeps a write out.
 */
final class ChannelSocket extends Socket {
  private final SocketChannel channel;
  private final CompletableFuture<Void> written;

  /** {@code written} is completed when something is about to be written. */
  ChannelSocket(SocketChannel channel, CompletableFuture<Void> written) {
    this.channel = channel;
    this.written = written;
  }

  @Override
  public InputStream getInputStream() {
    return new InputStream() {
      @Override
      public int read() throws IOException {
        byte[] one = new byte[1];
        return read(one, 0, 1) < 0 ? -1 : one[0] & 0xff;
      }

      @Override
      public int read(byte[] bytes, int offset, int length) throws IOException {
        return channel.read(ByteBuffer.wrap(bytes, offset, length));
      }
    };
  }

  @Override
  public OutputStream getOutputStream() {
    return new OutputStream() {
      @Override
      public void write(int b) throws IOException {
        write(new byte[] {(byte) b}, 0, 1);
      }

      @Override
      public void write(byte[] bytes, int offset, int length) throws IOException {
        written.complete(null);
        ByteBuffer rest = ByteBuffer.wrap(bytes, offset, length);
        while (rest.hasRemaining()) {
          channel.write(rest);
        }
      }
    };
  }

  @Override
  public SocketAddress getRemoteSocketAddress() {
    try {
      return channel.getRemoteAddress();
    } catch (IOException closed) {
      return null;
    }
  }

  @Override
  public boolean isClosed() {
    return !channel.isOpen();
  }

  @Override
  public void setTcpNoDelay(boolean on) {
    // A Unix socket delays nothing.
  }

  @Override
  public void close() throws IOException {
    channel.close();
  }
}

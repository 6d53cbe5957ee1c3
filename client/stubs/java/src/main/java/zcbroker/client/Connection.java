package zcbroker.client;

import java.io.Closeable;
import java.io.IOException;
import java.nio.channels.SocketChannel;
import java.nio.file.Path;
import java.util.Optional;

/**
 * A connection, and how it came about.
 *
 * @param channel connected, in blocking mode, and the caller's alone
 * @param lane to whom it leads
 * @param endpoint the socket's path
 * @param route present with {@link Lane#BROKER}
 * @param fallback why it is direct, where the environment asked for something else
 */
public record Connection(SocketChannel channel, Lane lane, Path endpoint, Optional<Route> route,
    Optional<BrokerException> fallback) implements Closeable {

  @Override
  public void close() throws IOException {
    channel.close();
  }
}

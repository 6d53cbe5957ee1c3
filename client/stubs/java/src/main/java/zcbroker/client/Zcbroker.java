package zcbroker.client;

import com.google.protobuf.InvalidProtocolBufferException;
import io.grpc.ManagedChannel;
import java.io.IOException;
import java.nio.file.Path;
import java.time.Duration;
import zcbroker.v1.NegotiateRequest;
import zcbroker.v1.NegotiateResponse;
import zcbroker.v1.RouteInfo;
import zcbroker.v1.World;

/**
 * Reaches a daemon that zcbroker looks after. What the caller gets is its own connected socket; no byte of its traffic
 * passes the broker. All calls are thread-safe and block.
 */
public final class Zcbroker {
  private Zcbroker() {}

  /**
   * Connects by the first row that fits:
   *
   * <ol>
   *   <li>{@code RUNNING_PROCESS_DISABLE} is {@code 1}: directly;
   *   <li>{@code RUNNING_PROCESS_FAKE_BACKEND} is not empty: there, else a warning and directly;
   *   <li>{@code ZCCACHE_BROKER_CONNECT} is {@code 1}: where the broker says, else directly;
   *   <li>otherwise directly.
   * </ol>
   *
   * The third reads the route info that the broker keeps in the runtime directory, which takes no broker; where that
   * leads nowhere, the broker is asked over gRPC.
   *
   * @param directEndpoint where the daemon listens for clients without a broker
   * @throws IllegalArgumentException {@code directEndpoint} is no absolute path of at most 107 bytes
   * @throws BrokerException with {@code ZCBROKER_STRICT=1}: what would have been a fallback otherwise
   * @throws NoDaemonException nobody accepts at {@code directEndpoint}
   */
  public static Connection connect(Path directEndpoint, ConnectOptions options) throws IOException {
    return new Connector(options).connect(directEndpoint);
  }

  /**
   * Asks the broker of this user where a backend listens; it starts one if need be. Gives up after {@code deadline}, and
   * after half a second without a sign of life.
   */
  public static NegotiateResponse negotiate(NegotiateRequest request, Duration deadline) throws BrokerException {
    return BrokerChannel.negotiate(request, Deadline.after(deadline));
  }

  /**
   * For the other calls of {@code zcbroker.v1.BrokerGrpc} and {@code AdminGrpc}: one connection to the broker of this
   * user, whose owner was checked. It does not reconnect. The caller shuts it down.
   */
  public static ManagedChannel openChannel() throws BrokerException {
    return BrokerChannel.open();
  }

  /**
   * Where the broker of this user keeps its socket and its route infos: {@code zcbroker/} in the first of {@code
   * $XDG_RUNTIME_DIR}, {@code /run/user/<euid>} and {@code /tmp/zcbroker-<euid>} that is the user's own directory of
   * mode 0700. Makes nothing.
   *
   * @throws IOException there is none, or {@code zcbroker/} in it is missing or open to others
   */
  public static Path runtimeDir() throws IOException {
    try (PrivateDir dir = RuntimeDir.open()) {
      return dir.path();
    }
  }

  /**
   * The names of a version of a service in a runtime directory, whether they exist or not.
   *
   * @throws IllegalArgumentException a name or version is outside its grammar
   */
  public static NamedRoute namedRoute(Path runtimeDir, String service, String version) {
    return Routes.named(runtimeDir, service, version);
  }

  /**
   * Decodes a route info.
   *
   * @throws InvalidProtocolBufferException it is none, or its endpoint is no absolute socket path
   */
  public static RouteInfo decodeRouteInfo(byte[] bytes) throws InvalidProtocolBufferException {
    return Routes.decode(bytes);
  }

  /**
   * What daemons must have in common with this process to serve it, from its environment as zccache reads it. Services
   * without such a cache are compared by the mount namespace alone.
   */
  public static World ownWorld() {
    return Worlds.own();
  }
}

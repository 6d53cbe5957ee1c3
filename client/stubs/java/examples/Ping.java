import java.nio.ByteBuffer;
import java.nio.file.Path;
import zcbroker.client.ConnectOptions;
import zcbroker.client.Zcbroker;

/** usage: Ping DIRECT_ENDPOINT SERVICE VERSION */
public class Ping {
  public static void main(String[] args) throws Exception {
    var ping = ByteBuffer.wrap(new byte[] {8, 0, 0, 0, 15, 0, 0, 0, 0, 0, 0, 0}); // a daemon answers with the same
    var pong = ByteBuffer.allocate(ping.capacity());
    try (var daemon = Zcbroker.connect(Path.of(args[0]), ConnectOptions.of(args[1], args[2]))) {
      daemon.channel().write(ping);
      while (pong.hasRemaining() && daemon.channel().read(pong) >= 0) {}
      if (!pong.flip().equals(ping.flip())) {
        throw new AssertionError("no pong");
      }
      System.out.println("pong by " + daemon.lane().label() + " at " + daemon.endpoint());
    }
  }
}

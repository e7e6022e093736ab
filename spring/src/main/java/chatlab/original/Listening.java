package chatlab.original;

import org.springframework.boot.SpringBootVersion;
import org.springframework.boot.context.event.ApplicationReadyEvent;
import org.springframework.context.event.EventListener;
import org.springframework.core.env.Environment;
import org.springframework.stereotype.Component;

/** Tells who started the program where it listens, once all of it runs. */
@Component
class Listening {

  private final Environment environment;

  Listening(Environment environment) {
    this.environment = environment;
  }

  @EventListener(ApplicationReadyEvent.class)
  void tell() {
    System.out.println(
        "listening on "
            + environment.getProperty("local.server.port")
            + " with Spring Boot "
            + SpringBootVersion.getVersion());
    System.out.flush();
  }
}

package chatlab.original;

import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;

/**
 * The article's programs, one by Spring profile: {@code raw}, {@code one}, {@code two}, and {@code fixed}.
 *
 * <p>Prints {@code listening on PORT with Spring Boot VERSION} once it accepts connections.
 */
@SpringBootApplication
public class Original {

  public static void main(String[] arguments) {
    SpringApplication.run(Original.class, arguments);
  }
}

package edgevit.app;

import java.io.BufferedReader;
import java.io.File;
import java.io.FileInputStream;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;

/**
 * The released model among the app's assets, as a file that PyTorch can open.
 *
 * <p>The name carries the version, and the SHA-256 of SHA256SUMS decides what is used: a copy that
 * an older app left, half a copy, or a changed asset never is.
 */
final class Release {
  static final String SUMS = "SHA256SUMS";
  static final String MODEL = ".ptl";

  /** Opens a file of the release by its name. */
  interface Source {
    InputStream open(String name) throws IOException;
  }

  private Release() {}

  /** Return the verified model in {@code folder}, copied there unless it is there already. */
  static File model(Source assets, File folder) throws IOException, ContractException {
    String[] entry = entry(assets);
    String sha256 = entry[0];
    String name = entry[1];
    File file = new File(folder, name);
    if (!file.isFile() || !sha256(file).equals(sha256)) copy(assets, name, sha256, file);
    File[] others = folder.listFiles((dir, other) -> other.endsWith(MODEL) && !other.equals(name));
    if (others != null) {
      for (File other : others) other.delete(); // other versions only take up room
    }
    return file;
  }

  /** SHA-256 of a file, in lower-case hexadecimal digits. */
  static String sha256(File file) throws IOException {
    try (InputStream in = new FileInputStream(file)) {
      return pour(in, null);
    }
  }

  private static void copy(Source assets, String name, String sha256, File file)
      throws IOException, ContractException {
    File part = new File(file.getPath() + ".part");
    try {
      try (InputStream in = assets.open(name);
          FileOutputStream out = new FileOutputStream(part)) {
        check(name, sha256, pour(in, out));
        out.getFD().sync();
      }
      check(name, sha256, sha256(part));
      if (!part.renameTo(file)) throw new IOException(file + " cannot be written");
    } finally {
      part.delete();
    }
  }

  private static void check(String name, String expected, String actual) throws ContractException {
    if (!actual.equals(expected)) {
      throw new ContractException(
          name + " is not the released file: its SHA-256 is " + actual + ", " + SUMS + " says "
              + expected + ". Put the release into the app's assets again.");
    }
  }

  /** The only .ptl in SHA256SUMS: its hash and its name. */
  private static String[] entry(Source assets) throws IOException, ContractException {
    String[] found = null;
    try (BufferedReader lines =
        new BufferedReader(
            new InputStreamReader(assets.open(SUMS), StandardCharsets.UTF_8))) {
      for (String line; (line = lines.readLine()) != null; ) {
        String[] parts = line.trim().split("\\s+\\*?", 2);
        if (parts.length < 2 || !parts[1].endsWith(MODEL)) continue;
        if (found != null) throw new ContractException(SUMS + " names more than one model.");
        if (!parts[0].matches("[0-9a-f]{64}") || parts[1].contains("/")) {
          throw new ContractException(SUMS + " has a line that cannot be read: " + line);
        }
        found = parts;
      }
    }
    if (found == null) throw new ContractException(SUMS + " names no " + MODEL + " file.");
    return found;
  }

  private static String pour(InputStream in, FileOutputStream out) throws IOException {
    MessageDigest digest;
    try {
      digest = MessageDigest.getInstance("SHA-256");
    } catch (NoSuchAlgorithmException error) {
      throw new IllegalStateException(error); // every Android has it
    }
    byte[] buffer = new byte[1 << 16];
    for (int read; (read = in.read(buffer)) > 0; ) {
      digest.update(buffer, 0, read);
      if (out != null) out.write(buffer, 0, read);
    }
    StringBuilder hex = new StringBuilder();
    for (byte value : digest.digest()) hex.append(String.format("%02x", value));
    return hex.toString();
  }
}

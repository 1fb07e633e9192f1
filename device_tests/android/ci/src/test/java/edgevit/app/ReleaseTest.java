package edgevit.app;

import static org.junit.Assert.assertArrayEquals;
import static org.junit.Assert.assertEquals;
import static org.junit.Assert.assertFalse;
import static org.junit.Assert.assertThrows;
import static org.junit.Assert.assertTrue;

import java.io.ByteArrayInputStream;
import java.io.File;
import java.io.FileNotFoundException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.util.HashMap;
import java.util.Map;
import org.junit.Before;
import org.junit.Rule;
import org.junit.Test;
import org.junit.rules.TemporaryFolder;

public final class ReleaseTest {
  private static final String NAME = "model-1.0.0.ptl";
  // sha256sum of the word "weights"
  private static final String SHA256 =
      "9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c";

  @Rule public final TemporaryFolder folder = new TemporaryFolder();
  private final Map<String, byte[]> assets = new HashMap<>();

  @Before
  public void release() {
    assets.put(NAME, bytes("weights"));
    sums(SHA256 + "  " + NAME + "\n" + SHA256 + "  labels.txt\n");
  }

  @Test
  public void isCopiedUnderItsName() throws Exception {
    File file = model();
    assertEquals(NAME, file.getName());
    assertArrayEquals(bytes("weights"), Files.readAllBytes(file.toPath()));
    assets.remove(NAME); // the verified copy is enough
    assertEquals(file, model());
  }

  @Test
  public void anOlderCopyOfTheSameNameIsNotTrusted() throws Exception {
    File file = new File(folder.getRoot(), NAME);
    Files.write(file.toPath(), bytes("an older model"));
    model();
    assertArrayEquals(bytes("weights"), Files.readAllBytes(file.toPath()));
  }

  @Test
  public void otherVersionsAreRemoved() throws Exception {
    File old = folder.newFile("model-0.9.0.ptl");
    model();
    assertFalse(old.exists());
  }

  @Test
  public void aChangedAssetIsRefused() {
    assets.put(NAME, bytes("weightz"));
    assertTrue(refusal().contains(NAME + " is not the released file: its SHA-256 is "));
    assertArrayEquals(new String[0], folder.getRoot().list());
  }

  @Test
  public void aTruncatedAssetIsRefused() {
    assets.put(NAME, bytes("weigh"));
    assertTrue(refusal().contains(NAME + " is not the released file"));
  }

  @Test
  public void sumsThatCannotBeUsedAreRefused() {
    sums("");
    assertTrue(refusal().contains("names no .ptl"));
    sums(SHA256 + "  a.ptl\n" + SHA256 + "  b.ptl\n");
    assertTrue(refusal().contains("more than one"));
    sums("beef  " + NAME + "\n");
    assertTrue(refusal().contains("cannot be read"));
    sums(SHA256 + "  ../" + NAME + "\n");
    assertTrue(refusal().contains("cannot be read"));
  }

  private File model() throws Exception {
    return Release.model(
        name -> {
          if (!assets.containsKey(name)) throw new FileNotFoundException(name);
          return new ByteArrayInputStream(assets.get(name));
        },
        folder.getRoot());
  }

  private String refusal() {
    return assertThrows(ContractException.class, this::model).getMessage();
  }

  private void sums(String text) {
    assets.put(Release.SUMS, bytes(text));
  }

  private static byte[] bytes(String text) {
    return text.getBytes(StandardCharsets.UTF_8);
  }
}

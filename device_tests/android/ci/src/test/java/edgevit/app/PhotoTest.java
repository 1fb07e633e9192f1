package edgevit.app;

import static org.junit.Assert.assertEquals;

import android.content.ContentResolver;
import android.graphics.Bitmap;
import android.graphics.Color;
import android.media.ExifInterface;
import android.net.Uri;
import java.io.File;
import java.io.OutputStream;
import java.nio.file.Files;
import org.json.JSONArray;
import org.json.JSONObject;
import org.junit.Rule;
import org.junit.Test;
import org.junit.rules.TemporaryFolder;
import org.junit.runner.RunWith;
import org.robolectric.RobolectricTestRunner;
import org.robolectric.RuntimeEnvironment;

/** A picture is turned, and put on a background, as the contract says. */
@RunWith(RobolectricTestRunner.class)
public final class PhotoTest {
  @Rule public final TemporaryFolder folder = new TemporaryFolder();

  @Test
  public void itsOrientationIsApplied() throws Exception {
    // Where the red top left corner of 32 x 16 pixels goes: x, y in eighths of the upright picture.
    int[][] corner = {{1, 1}, {7, 1}, {7, 7}, {1, 7}, {1, 1}, {7, 1}, {7, 7}, {1, 7}};
    for (int orientation = 1; orientation <= 8; orientation++) {
      Bitmap upright = read(orientation, Contracts.valid());
      boolean turned = orientation >= 5;
      assertEquals(turned ? 16 : 32, upright.getWidth());
      assertEquals(turned ? 32 : 16, upright.getHeight());
      int[] at = corner[orientation - 1];
      int pixel =
          upright.getPixel(upright.getWidth() * at[0] / 8, upright.getHeight() * at[1] / 8);
      assertEquals("orientation " + orientation, 255, Color.red(pixel), 40);
      assertEquals("orientation " + orientation, 0, Color.blue(pixel), 40);
    }
  }

  @Test
  public void itIsLeftAsStoredWhereTheContractSaysSo() throws Exception {
    JSONObject json = Contracts.json();
    json.getJSONObject("preprocessing").put("orientation", "stored");
    Contract contract = Contract.parse(json.toString());
    for (int orientation = 1; orientation <= 8; orientation++) {
      Bitmap stored = read(orientation, contract);
      assertEquals(32, stored.getWidth());
      assertEquals(255, Color.red(stored.getPixel(4, 2)), 40);
    }
  }

  @Test
  public void transparentPartsAreOnTheBackground() throws Exception {
    JSONObject json = Contracts.json();
    json.getJSONObject("preprocessing").put("background", new JSONArray("[10, 200, 90]"));
    assertEquals(Color.rgb(255, 255, 255), glass(Contracts.valid()));
    assertEquals(Color.rgb(10, 200, 90), glass(Contract.parse(json.toString())));
  }

  private int glass(Contract contract) throws Exception {
    Bitmap image = Bitmap.createBitmap(8, 8, Bitmap.Config.ARGB_8888); // all transparent
    File file = folder.newFile();
    try (OutputStream out = Files.newOutputStream(file.toPath())) {
      image.compress(Bitmap.CompressFormat.PNG, 100, out);
    }
    return read(file, contract).getPixel(3, 3);
  }

  private static Bitmap read(File file, Contract contract) throws Exception {
    ContentResolver resolver = RuntimeEnvironment.getApplication().getContentResolver();
    return Photo.read(resolver, Uri.fromFile(file), contract);
  }

  private Bitmap read(int orientation, Contract contract) throws Exception {
    Bitmap image = Bitmap.createBitmap(32, 16, Bitmap.Config.ARGB_8888);
    image.eraseColor(Color.BLUE);
    for (int y = 0; y < 8; y++) for (int x = 0; x < 16; x++) image.setPixel(x, y, Color.RED);
    File file = folder.newFile();
    try (OutputStream out = Files.newOutputStream(file.toPath())) {
      image.compress(Bitmap.CompressFormat.JPEG, 100, out);
    }
    ExifInterface exif = new ExifInterface(file.getPath());
    exif.setAttribute(ExifInterface.TAG_ORIENTATION, String.valueOf(orientation));
    exif.saveAttributes();
    return read(file, contract);
  }
}

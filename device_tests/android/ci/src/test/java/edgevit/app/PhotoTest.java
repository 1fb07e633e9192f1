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
import org.junit.Rule;
import org.junit.Test;
import org.junit.rules.TemporaryFolder;
import org.junit.runner.RunWith;
import org.robolectric.RobolectricTestRunner;
import org.robolectric.RuntimeEnvironment;

/** A picture that the camera wrote lying on its side is classified upright. */
@RunWith(RobolectricTestRunner.class)
public final class PhotoTest {
  @Rule public final TemporaryFolder folder = new TemporaryFolder();

  @Test
  public void itsOrientationIsApplied() throws Exception {
    // Where the red top left corner of 32 x 16 pixels goes: x, y in eighths of the upright picture.
    int[][] corner = {{1, 1}, {7, 1}, {7, 7}, {1, 7}, {1, 1}, {7, 1}, {7, 7}, {1, 7}};
    for (int orientation = 1; orientation <= 8; orientation++) {
      Bitmap upright = read(orientation);
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

  private Bitmap read(int orientation) throws Exception {
    Bitmap image = Bitmap.createBitmap(32, 16, Bitmap.Config.ARGB_8888);
    image.eraseColor(Color.BLUE);
    for (int y = 0; y < 8; y++) for (int x = 0; x < 16; x++) image.setPixel(x, y, Color.RED);
    File file = folder.newFile(orientation + ".jpg");
    try (OutputStream out = Files.newOutputStream(file.toPath())) {
      image.compress(Bitmap.CompressFormat.JPEG, 100, out);
    }
    ExifInterface exif = new ExifInterface(file.getPath());
    exif.setAttribute(ExifInterface.TAG_ORIENTATION, String.valueOf(orientation));
    exif.saveAttributes();
    ContentResolver resolver = RuntimeEnvironment.getApplication().getContentResolver();
    return Photo.read(resolver, Uri.fromFile(file));
  }
}

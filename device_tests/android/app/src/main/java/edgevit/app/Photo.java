package edgevit.app;

import android.content.ContentResolver;
import android.graphics.Bitmap;
import android.graphics.BitmapFactory;
import android.graphics.Canvas;
import android.graphics.Matrix;
import android.media.ExifInterface;
import android.net.Uri;
import java.io.FileNotFoundException;
import java.io.IOException;
import java.io.InputStream;

/** A person's picture. */
final class Photo {
  /** A picture of more pixels is halved while it is read, which costs a little of the parity. */
  private static final long MOST_PIXELS = 50_000_000;

  private Photo() {}

  /**
   * Decode a picture as the contract says: turned as its EXIF orientation says or as it is stored,
   * and what is transparent on the background.
   */
  static Bitmap read(ContentResolver resolver, Uri uri, Contract contract) throws IOException {
    BitmapFactory.Options options = new BitmapFactory.Options();
    options.inJustDecodeBounds = true;
    decode(resolver, uri, options);
    options.inJustDecodeBounds = false;
    options.inSampleSize = 1;
    long pixels = (long) options.outWidth * options.outHeight;
    while (pixels / options.inSampleSize / options.inSampleSize > MOST_PIXELS) {
      options.inSampleSize *= 2;
    }
    Bitmap image = decode(resolver, uri, options);
    if (image == null) throw new IOException("Android cannot decode it");
    if (image.hasAlpha()) image = opaque(image, contract.background);
    Matrix turn = contract.upright ? orientation(resolver, uri) : new Matrix();
    if (turn.isIdentity()) return image;
    return Bitmap.createBitmap(image, 0, 0, image.getWidth(), image.getHeight(), turn, false);
  }

  private static Bitmap opaque(Bitmap image, int background) {
    Bitmap ground =
        Bitmap.createBitmap(image.getWidth(), image.getHeight(), Bitmap.Config.ARGB_8888);
    ground.eraseColor(background);
    new Canvas(ground).drawBitmap(image, 0, 0, null);
    return ground;
  }

  private static Bitmap decode(ContentResolver resolver, Uri uri, BitmapFactory.Options options)
      throws IOException {
    try (InputStream in = open(resolver, uri)) {
      return BitmapFactory.decodeStream(in, null, options);
    }
  }

  private static InputStream open(ContentResolver resolver, Uri uri) throws IOException {
    InputStream in = resolver.openInputStream(uri);
    if (in == null) throw new FileNotFoundException("its provider gave nothing");
    return in;
  }

  private static Matrix orientation(ContentResolver resolver, Uri uri) throws IOException {
    Matrix matrix = new Matrix();
    try (InputStream in = open(resolver, uri)) {
      switch (new ExifInterface(in).getAttributeInt(ExifInterface.TAG_ORIENTATION, 1)) {
        case ExifInterface.ORIENTATION_FLIP_HORIZONTAL:
          matrix.setScale(-1, 1);
          break;
        case ExifInterface.ORIENTATION_ROTATE_180:
          matrix.setRotate(180);
          break;
        case ExifInterface.ORIENTATION_FLIP_VERTICAL:
          matrix.setScale(1, -1);
          break;
        case ExifInterface.ORIENTATION_TRANSPOSE:
          matrix.setRotate(90);
          matrix.postScale(-1, 1);
          break;
        case ExifInterface.ORIENTATION_ROTATE_90:
          matrix.setRotate(90);
          break;
        case ExifInterface.ORIENTATION_TRANSVERSE:
          matrix.setRotate(270);
          matrix.postScale(-1, 1);
          break;
        case ExifInterface.ORIENTATION_ROTATE_270:
          matrix.setRotate(270);
          break;
        default:
          break;
      }
    }
    return matrix;
  }
}

package edgevit.app;

import android.content.ContentProvider;
import android.content.ContentValues;
import android.content.Context;
import android.database.Cursor;
import android.net.Uri;
import android.os.ParcelFileDescriptor;
import java.io.File;
import java.io.FileNotFoundException;

/** Lends the camera app one file to write a full-size picture to. */
public final class CaptureProvider extends ContentProvider {
  /** The one address; a camera may use it for as long as it was granted. */
  static Uri uri(Context context) {
    return Uri.parse("content://" + context.getPackageName() + ".capture/photo.jpg");
  }

  static File file(Context context) {
    return new File(context.getCacheDir(), "photo.jpg");
  }

  @Override
  public ParcelFileDescriptor openFile(Uri uri, String mode) throws FileNotFoundException {
    Context context = getContext();
    if (context == null || !uri.equals(uri(context))) throw new FileNotFoundException(uri.toString());
    return ParcelFileDescriptor.open(file(context), ParcelFileDescriptor.parseMode(mode));
  }

  @Override
  public boolean onCreate() {
    return true;
  }

  @Override
  public String getType(Uri uri) {
    return "image/jpeg";
  }

  @Override
  public Cursor query(Uri uri, String[] columns, String where, String[] args, String order) {
    return null;
  }

  @Override
  public Uri insert(Uri uri, ContentValues values) {
    return null;
  }

  @Override
  public int delete(Uri uri, String where, String[] args) {
    return 0;
  }

  @Override
  public int update(Uri uri, ContentValues values, String where, String[] args) {
    return 0;
  }
}

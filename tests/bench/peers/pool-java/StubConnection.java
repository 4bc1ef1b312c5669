// SPDX-License-Identifier: MIT

import java.sql.*;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.Executor;

/** A connection that does nothing, so that only the pool is measured. */
final class StubConnection implements Connection {
    public <T> T unwrap(Class<T> p0) { return null; }
    public Array createArrayOf(String p0, Object[] p1) { return null; }
    public Blob createBlob() { return null; }
    public CallableStatement prepareCall(String p0) { return null; }
    public CallableStatement prepareCall(String p0, int p1, int p2) { return null; }
    public CallableStatement prepareCall(String p0, int p1, int p2, int p3) { return null; }
    public Clob createClob() { return null; }
    public DatabaseMetaData getMetaData() { return null; }
    public Map<String, Class<?>> getTypeMap() { return null; }
    public NClob createNClob() { return null; }
    public PreparedStatement prepareStatement(String p0) { return null; }
    public PreparedStatement prepareStatement(String p0, String[] p1) { return null; }
    public PreparedStatement prepareStatement(String p0, int p1) { return null; }
    public PreparedStatement prepareStatement(String p0, int p1, int p2) { return null; }
    public PreparedStatement prepareStatement(String p0, int p1, int p2, int p3) { return null; }
    public PreparedStatement prepareStatement(String p0, int[] p1) { return null; }
    public Properties getClientInfo() { return null; }
    public SQLWarning getWarnings() { return null; }
    public SQLXML createSQLXML() { return null; }
    public Savepoint setSavepoint() { return null; }
    public Savepoint setSavepoint(String p0) { return null; }
    public Statement createStatement() { return null; }
    public Statement createStatement(int p0, int p1) { return null; }
    public Statement createStatement(int p0, int p1, int p2) { return null; }
    public String getCatalog() { return null; }
    public String getClientInfo(String p0) { return null; }
    public String getSchema() { return null; }
    public String nativeSQL(String p0) { return null; }
    public Struct createStruct(String p0, Object[] p1) { return null; }
    public boolean getAutoCommit() { return true; }
    public boolean isClosed() { return false; }
    public boolean isReadOnly() { return false; }
    public boolean isValid(int p0) { return true; }
    public boolean isWrapperFor(Class<?> p0) { return false; }
    public int getHoldability() { return 0; }
    public int getNetworkTimeout() { return 0; }
    public int getTransactionIsolation() { return TRANSACTION_READ_COMMITTED; }
    public void abort(Executor p0) { }
    public void clearWarnings() { }
    public void close() { }
    public void commit() { }
    public void releaseSavepoint(Savepoint p0) { }
    public void rollback() { }
    public void rollback(Savepoint p0) { }
    public void setAutoCommit(boolean p0) { }
    public void setCatalog(String p0) { }
    public void setClientInfo(Properties p0) { }
    public void setClientInfo(String p0, String p1) { }
    public void setHoldability(int p0) { }
    public void setNetworkTimeout(Executor p0, int p1) { }
    public void setReadOnly(boolean p0) { }
    public void setSchema(String p0) { }
    public void setTransactionIsolation(int p0) { }
    public void setTypeMap(Map<String, Class<?>> p0) { }
}

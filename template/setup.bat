@echo off
rem Sets up this project: environment, dependencies, .env and database. Safe to run again at any time.
rem setup.sh takes the same steps on Linux and macOS: change both together.
setlocal
cd /d "%~dp0"
set "VIRTUAL_ENV="
set "PYTHONHOME="
set "PYTHONPATH="
set "VENV_PYTHON=%~dp0.venv\Scripts\python.exe"

rem Exit code: 0 if the dependencies are up to date, 1 if not, 2 if the project folder was moved.
set "STAMP=import os, pathlib, sys; p = pathlib.Path; wanted = chr(10).join([os.getcwd(), *(p(n).read_text('utf-8') for n in ('pyproject.toml', 'constraints.txt'))]); s = p('.venv', 'installed.txt'); sys.argv[1:] == ['write'] and s.write_text(wanted, 'utf-8'); installed = s.read_text('utf-8') if s.is_file() else ''; sys.exit(2 if installed and installed.splitlines()[0] != os.getcwd() else installed != wanted)"

rem "not errorlevel 1" means success.
set "UV="
call uv --version >nul 2>nul
if not errorlevel 1 set "UV=yes"

if not exist constraints.txt goto no_project

echo [setup] 1/4 Python environment
if not exist "%VENV_PYTHON%" goto make_environment
rem A killed installation leaves incomplete packages, so .venv is created again.
if exist ".venv\half-installed" goto make_environment
"%VENV_PYTHON%" -m pip --version >nul 2>nul
if errorlevel 1 goto make_environment
"%VENV_PYTHON%" -c "%STAMP%"
if errorlevel 2 goto make_environment
if errorlevel 1 goto install
echo [setup] 2/4 Dependencies
goto settings

:make_environment
if defined UV goto make_environment_with_uv
set "PYTHON="
set "TOO_OLD="
call :try py -3
if not defined PYTHON call :try python
if defined PYTHON goto make_environment_with_python
if defined TOO_OLD goto old_python
goto no_python

rem Windows has an alias named python that only opens the Microsoft Store. It fails here.
rem Without "call", a python that is a .bat file would end this script.
:try
call %* --version >nul 2>nul
if errorlevel 1 exit /b 0
set "TOO_OLD=%*"
call %* -c "import sys; sys.exit(sys.version_info < (3, 11))"
if not errorlevel 1 set "PYTHON=%*"
exit /b 0

:make_environment_with_python
call %PYTHON% -m venv --clear .venv
if errorlevel 1 goto no_environment
goto install

:make_environment_with_uv
call uv venv --quiet --clear --seed --python ">=3.11" .venv
if errorlevel 1 goto no_environment

:install
echo [setup] 2/4 Dependencies
"%VENV_PYTHON%" -c "open('.venv/half-installed', 'w').close()"
if errorlevel 1 goto no_dependencies
if defined UV goto install_with_uv
echo [setup]     This takes about half a minute the first time.
"%VENV_PYTHON%" -m pip install --disable-pip-version-check --retries 2 --constraint constraints.txt --editable ".[dev]"
if errorlevel 1 goto no_dependencies
goto remember

:install_with_uv
call uv pip install --python "%VENV_PYTHON%" --constraint constraints.txt --editable ".[dev]"
if errorlevel 1 goto no_dependencies

:remember
del ".venv\half-installed"
"%VENV_PYTHON%" -c "%STAMP%" write
if errorlevel 1 goto no_dependencies

:settings
echo [setup] 3/4 Settings (.env)
if exist ".env" goto database
copy ".env.example" ".env.new" >nul
if errorlevel 1 goto no_settings
move ".env.new" ".env" >nul
if errorlevel 1 goto no_settings

:database
echo [setup] 4/4 Database
rem A database must not be ahead of an app that does not work.
"%VENV_PYTHON%" -c "import app.main"
if errorlevel 1 goto no_app
"%VENV_PYTHON%" -m alembic upgrade head
if errorlevel 1 goto no_database

echo [setup] Done. Start the app, then open http://localhost:8001
echo.
echo     .venv\Scripts\uvicorn app.main:app --reload --port 8001
echo.
exit /b 0

:no_project
echo [setup] ERROR: setup.bat is not in a project folder.
set "CODE=1"
goto stop

:no_python
echo [setup] ERROR: Python 3.11 or newer was not found. Get it from https://www.python.org/downloads/ and select "Add to PATH".
set "CODE=10"
goto stop

:old_python
echo [setup] ERROR: Python 3.11 or newer is required. This is:
call %TOO_OLD% --version
set "CODE=11"
goto stop

:no_environment
echo [setup] ERROR: could not create .venv
set "CODE=12"
goto stop

:no_dependencies
if exist ".venv\half-installed" del ".venv\half-installed"
echo [setup] ERROR: could not install the dependencies, see above. If you were offline, connect and run setup.bat again.
set "CODE=14"
goto stop

:no_settings
echo [setup] ERROR: could not write .env
set "CODE=15"
goto stop

:no_app
echo [setup] ERROR: could not import the app, see above
set "CODE=17"
goto stop

:no_database
echo [setup] ERROR: could not migrate the database, see above
set "CODE=16"
goto stop

rem After a double click, pause: otherwise the window closes with the error.
rem Explorer's command line is the only one that ends like this: cmd /c ""C:\...\setup.bat" "
:stop
setlocal EnableDelayedExpansion
set "STARTED_BY=!CMDCMDLINE!"
if not defined STARTED_BY exit /b %CODE%
set "LAST=!STARTED_BY:~-3!"
if "!LAST:"=x!"=="x x" pause
exit /b %CODE%

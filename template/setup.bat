@echo off
rem Sets this project up: environment, dependencies, .env, database. Safe to run again at any time.
rem setup.sh is its twin: a step that changes here changes there.
setlocal
cd /d "%~dp0"
set "VIRTUAL_ENV="
set "PYTHONHOME="
set "PYTHONPATH="
set "VENV_PYTHON=%~dp0.venv\Scripts\python.exe"

rem Exits with 0 if what is wanted is installed, 1 if not, 2 if .venv came here with a moved folder.
set "STAMP=import os, pathlib, sys; p = pathlib.Path; wanted = chr(10).join([os.getcwd(), *(p(n).read_text('utf-8') for n in ('pyproject.toml', 'constraints.txt'))]); s = p('.venv', 'installed.txt'); sys.argv[1:] == ['write'] and s.write_text(wanted, 'utf-8'); installed = s.read_text('utf-8') if s.is_file() else ''; sys.exit(2 if installed and installed.splitlines()[0] != os.getcwd() else installed != wanted)"

rem "not errorlevel 1" means success.
set "UV="
call uv --version >nul 2>nul
if not errorlevel 1 set "UV=yes"

if not exist constraints.txt goto no_project

echo [setup] 1/4 Python environment
if not exist "%VENV_PYTHON%" goto make_environment
rem An installation that was killed leaves packages without their parts: then it all begins anew.
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

rem The alias that opens the Microsoft Store is called python too, and fails.
rem "call", because a python that is itself a .bat would not come back here.
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
echo [setup]     The first time, this takes half a minute.
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
"%VENV_PYTHON%" -m alembic upgrade head
if errorlevel 1 goto no_database

echo [setup] Done. Start it, then open http://localhost:8001
echo.
echo     .venv\Scripts\uvicorn app.main:app --reload --port 8001
echo.
exit /b 0

:no_project
echo [setup] ERROR: setup.bat is not in its project.
set "CODE=1"
goto stop

:no_python
echo [setup] ERROR: Python 3.11 or newer was not found. Get it from https://www.python.org/downloads/ and tick "Add to PATH".
set "CODE=10"
goto stop

:old_python
echo [setup] ERROR: Python 3.11 or newer is needed, and this is:
call %TOO_OLD% --version
set "CODE=11"
goto stop

:no_environment
echo [setup] ERROR: could not create .venv
set "CODE=12"
goto stop

:no_dependencies
if exist ".venv\half-installed" del ".venv\half-installed"
echo [setup] ERROR: the dependencies could not be installed. Once the network is there, run setup.bat again.
set "CODE=14"
goto stop

:no_settings
echo [setup] ERROR: could not write .env
set "CODE=15"
goto stop

:no_database
echo [setup] ERROR: the database could not be migrated, see above
set "CODE=16"
goto stop

rem After a double click, the window would close with the reason in it. Only Explorer's command ends so: cmd /c ""C:\...\setup.bat" "
:stop
setlocal EnableDelayedExpansion
set "STARTED_BY=!CMDCMDLINE!"
if not defined STARTED_BY exit /b %CODE%
set "LAST=!STARTED_BY:~-3!"
if "!LAST:"=x!"=="x x" pause
exit /b %CODE%
